"""Team roles and the GitHub connector: in step with the stack, and nothing else touched."""

import copy
import json
from typing import Any

import pytest

from tests.boot.conftest import Rig
from tests.boot.rig import Host
from tests.boot.test_faults import CONNECTOR, ROLE

ACCESS = "teleport-access"
SECRET = "gh0-s3cret-value"  # noqa: S105  made up


def role(name: str, group: str = "dev") -> dict[str, Any]:
    made = copy.deepcopy(ROLE)
    made["metadata"]["name"] = name
    made["spec"]["allow"]["kubernetes_groups"] = [group]
    return made


def connector(*roles: str) -> dict[str, Any]:
    made = copy.deepcopy(CONNECTOR)
    made["spec"]["teams_to_roles"] = [{"organization": "acme", "team": name, "roles": [name]} for name in roles]
    return made


def stack(rig: Rig, host: Host, *roles: str, secret: str = SECRET) -> None:
    values: dict[str, Any] = {f"role__{name}": role(name) for name in roles}
    rig.parameters(host, **values, connector=connector(*roles), secret=secret)


def syncs(host: Host) -> list[str]:
    """The changes that tctl was asked for by one run."""
    settle(host)
    host.sh("rm -f /run/rig/tctl.log")
    run = host.start(ACCESS)
    assert run.code == 0, run
    changes = host.sh("cat /run/rig/tctl.log 2>/dev/null", check=False).splitlines()
    return [change for change in changes if "health_check" not in change]


def settle(host: Host) -> None:
    """A minute later: Teleport's cache has all that was changed."""
    host.sh("cd /var/lib/teleport; [[ ! -e backend.json ]] || cp backend.json backend.old.json")


def fails(host: Host, reason: str) -> None:
    settle(host)
    before = host.resources()
    run = host.start(ACCESS)
    assert run.code, run
    assert reason in run.console, run
    assert host.resources() == before, "nothing was changed"


def by_hand(host: Host, resource: dict[str, Any]) -> None:
    host.write("/tmp/resource.json", json.dumps(resource))  # noqa: S108  on the rig's host
    host.sh("tctl --config=/etc/teleport.yaml create -f </tmp/resource.json")
    settle(host)


def sign_in(host: Host, *roles: str) -> None:
    """As if people held these roles from now on, and nobody any other."""
    host.write("/run/rig/holders", " ".join(roles))


def test_without_github_only_the_health_check_is_stopped(running: Host) -> None:
    assert syncs(running) == []
    (name, check), *more = running.resources().items()
    assert (name, more) == ("health_check_config/default-kube", [])
    assert check["spec"] == {"match": {"disabled": True}}


def test_roles_go_in_before_the_connector(rig: Rig, running: Host) -> None:
    stack(rig, running, "a", "b")
    assert syncs(running) == ["create role/a", "create role/b", "create github/github"]
    assert running.resources()["github/github"]["spec"]["client_secret"] == SECRET


def test_what_was_applied_is_known_although_teleport_shows_it_late(rig: Rig, running: Host) -> None:
    stack(rig, running, "a")
    syncs(running)
    known = json.loads(running.sh("cat /run/teleport-eks/access.json"))
    assert known.keys() == {"role/a", "github/github", "health_check_config/default-kube"}
    store = {name: item for name, item in running.resources().items() if name != "role/a"}
    running.write("/var/lib/teleport/backend.json", json.dumps(store))
    assert syncs(running) == ["create role/a"]


def test_nothing_changed_means_nothing_done(rig: Rig, running: Host) -> None:
    stack(rig, running, "a")
    syncs(running)
    assert syncs(running) == []


def test_after_a_reboot_everything_is_applied_once(rig: Rig, running: Host) -> None:
    stack(rig, running, "a")
    syncs(running)
    running.reboot()
    running.resume()
    assert syncs(running) == ["create role/a", "create github/github"]
    assert syncs(running) == []


def test_a_team_is_added_and_another_removed(rig: Rig, running: Host) -> None:
    stack(rig, running, "a", "b")
    syncs(running)
    stack(rig, running, "b", "c")
    # Role a allows nothing before all else, and the connector stops naming it before it goes.
    assert syncs(running) == [*EMPTIED, "create role/c", "create github/github", "rm role/a"]


EMPTIED = ["create lock/teleport-eks-a", "create role/a"]


def test_a_role_that_somebody_holds_allows_nothing_and_goes_when_nobody_does(rig: Rig, running: Host) -> None:
    stack(rig, running, "a", "b")
    syncs(running)
    sign_in(running, "a", "b")
    stack(rig, running, "b")
    assert syncs(running) == [*EMPTIED, "create github/github"]
    left = running.resources()
    assert left["role/a"]["spec"].get("allow", {}) == {}
    lock = left["lock/teleport-eks-a"]
    assert lock["spec"]["target"] == {"role": "a"}
    assert lock["spec"]["expires"] == lock["metadata"]["expires"]
    assert syncs(running) == [], "it waits, and fails at nothing"
    sign_in(running, "b")
    assert syncs(running) == ["rm role/a"]


def test_a_team_that_comes_back_has_its_rights_again(rig: Rig, running: Host) -> None:
    stack(rig, running, "a", "b")
    syncs(running)
    sign_in(running, "a")
    stack(rig, running, "b")
    syncs(running)
    stack(rig, running, "a", "b")
    assert syncs(running) == ["create role/a", "rm lock/teleport-eks-a", "create github/github"]
    assert running.resources()["role/a"]["spec"]["allow"]["kubernetes_groups"] == ["dev"]


def test_a_removed_team_is_out_even_if_the_connector_is_refused(rig: Rig, running: Host) -> None:
    stack(rig, running, "a", "b")
    syncs(running)
    sign_in(running, "a")
    stack(rig, running, "b")
    settle(running)
    running.spoil("tctl", "fail", times=1, text='"kind": "github"')  # GitHub cannot be asked about the organization
    run = running.start(ACCESS)
    assert "made to fail" in run.console, run
    assert running.resources()["role/a"]["spec"].get("allow", {}) == {}
    assert syncs(running) == ["create github/github"]


def test_a_secret_is_rotated(rig: Rig, running: Host) -> None:
    stack(rig, running, "a")
    syncs(running)
    stack(rig, running, "a", secret="another-s3cret")  # noqa: S106
    assert syncs(running) == ["create github/github"]
    assert running.resources()["github/github"]["spec"]["client_secret"] == "another-s3cret"  # noqa: S105


def test_more_roles_than_one_page_of_ssm(rig: Rig, running: Host) -> None:
    names = [f"team{number:02}" for number in range(12)]
    stack(rig, running, *names)
    syncs(running)
    assert {f"role/{name}" for name in names} <= set(running.resources())


def test_github_is_taken_out_of_the_stack(rig: Rig, running: Host) -> None:
    stack(rig, running, "a")
    syncs(running)
    running.reboot()  # what was applied is known from the labels, not from this boot's memory
    running.resume()
    rig.parameters(running)
    assert syncs(running) == [*EMPTIED, "rm github/github", "rm role/a"]


@pytest.mark.parametrize("drift", ["edited", "removed", "all lost"])
def test_a_change_by_hand_is_healed(rig: Rig, running: Host, drift: str) -> None:
    stack(rig, running, "a")
    syncs(running)
    if drift == "edited":
        edited = role("a", "system:masters")
        edited["metadata"]["labels"] = {"teleport-eks": running.config.stack}
        by_hand(running, edited)
    else:
        store = json.dumps(
            {} if drift == "all lost" else {k: v for k, v in running.resources().items() if k != "role/a"}
        )
        running.write("/var/lib/teleport/backend.json", store)
    syncs(running)
    assert running.resources()["role/a"]["spec"]["allow"]["kubernetes_groups"] == ["dev"]
    assert "github/github" in running.resources()


def test_what_others_made_is_not_touched(rig: Rig, running: Host) -> None:
    theirs, another_stacks = role("admin"), role("other")
    another_stacks["metadata"]["labels"] = {"teleport-eks": "another"}
    by_hand(running, theirs)
    by_hand(running, another_stacks)
    syncs(running)
    before = running.resources()
    stack(rig, running, "a")
    syncs(running)
    rig.parameters(running)
    syncs(running)
    assert {name: item for name, item in running.resources().items() if not name.startswith("lock/")} == before


def test_a_name_that_is_taken_is_not_taken_over(rig: Rig, running: Host) -> None:
    by_hand(running, role("a", "admins"))
    stack(rig, running, "a")
    fails(running, "role/a exists and is not this stack's")


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"secret": None}, "github-client-secret is missing"),
        ({"role__a": "{rubbish"}, "parameter roles/a is not JSON"),
        ({"role__a": '{"kind": "user"}'}, "is not a named resource of kind role"),
        ({"role__a": role("b")}, "holds the role b"),
        ({"connector": "[]"}, "github-connector is not a JSON object"),
        ({"role__b": {**role("b"), "spec": {"allow": {"kubernets_groups": []}}}}, "kubernets_groups is not known"),
    ],
    ids=["no secret", "not JSON", "another kind", "another name", "not an object", "refused by Teleport"],
)
def test_what_cannot_be_read_changes_nothing(rig: Rig, running: Host, parameters: dict[str, Any], reason: str) -> None:
    stack(rig, running, "a")
    syncs(running)
    values = {"role__a": role("a"), "connector": connector("a"), "secret": SECRET, **parameters}
    rig.parameters(running, **{key: value for key, value in values.items() if value is not None})
    fails(running, reason)


def test_the_secret_is_in_no_log_and_on_no_disk(rig: Rig, running: Host) -> None:
    stack(rig, running, "a")
    # A tctl that repeats its input when it fails.
    running.spoil("tctl", "echo", times=3, text="create")
    rig.parameters(running, connector=connector("admin"), secret=SECRET)
    by_hand_role = role("admin")
    by_hand_role["metadata"]["labels"] = {}
    runs = [running.start(ACCESS) for _ in range(2)]
    assert runs[0].code, runs[0]
    running.repair()
    by_hand(running, by_hand_role)
    runs.append(running.start(ACCESS))
    assert runs[-1].code == 0, runs[-1]
    assert not [run for run in runs if SECRET in run.console + run.journal]
    written = rig.world.run("sh", "-c", f"grep -rlsF {SECRET} {running.files}/upper || true")
    kept = running.sh(f"grep -rlsF {SECRET} /run /var/lib/teleport | sort")
    backend = "/var/lib/teleport/backend.json\n/var/lib/teleport/backend.old.json"
    assert (written, kept) == ("", backend), "only Teleport has it"


def test_teleport_that_is_down_is_said(rig: Rig, running: Host) -> None:
    stack(rig, running, "a")
    running.sh("systemctl stop teleport.service")
    fails(running, "the auth service is not running")
    running.sh("systemctl start teleport.service")
    assert syncs(running)

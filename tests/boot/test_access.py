"""Team roles and the GitHub connector follow the stack. Nothing else in Teleport changes."""

import json
from typing import Any

from tests.boot.rig import ACCESS, SECRET, Host, Rig, connector, role

BACKEND = "/var/lib/teleport/backend.json"
CHECK, GITHUB = "health_check_config/default-kube", "github/github"
EMPTIED = ["create lock/teleport-eks-a", "create role/a"]


def sync(host: Host) -> list[str]:
    """Runs the unit once, and returns what tctl changed. The health check is left out."""
    let_caches_settle(host)
    host.sh("rm -f /run/rig/tctl.log")
    host.succeed(ACCESS)
    return [change for change in host.read("/run/rig/tctl.log").splitlines() if "health_check" not in change]


def let_caches_settle(host: Host) -> None:
    """As after a minute, when Teleport's cache has every change."""
    host.path("/var/lib/teleport/backend.old.json").unlink(missing_ok=True)


def refuse(host: Host, reason: str) -> None:
    """Runs the unit once, and checks that it fails for this reason and changes nothing."""
    let_caches_settle(host)
    before = host.resources()
    host.fail(ACCESS, reason)
    assert host.resources() == before, "nothing was changed"


def create_by_hand(host: Host, resource: dict[str, Any], stack: str = "") -> None:
    """With ``stack``, the resource has that stack's label."""
    if stack:
        resource["metadata"]["labels"] = {"teleport-eks": stack}
    host.write("/run/rig/resource.json", json.dumps(resource))
    host.sh("tctl --config=/etc/teleport.yaml create -f </run/rig/resource.json")


def set_holders(host: Host, *roles: str) -> None:
    """From now on people are signed in with these roles, and with no others."""
    host.write("/run/rig/holders", " ".join(roles))


def restart(host: Host) -> None:
    host.reboot()
    host.resume()


def test_each_change_of_the_stack_is_applied_once(rig: Rig, running: Host) -> None:
    assert sync(running) == []
    assert {name: item["spec"] for name, item in running.resources().items()} == {CHECK: {"match": {"disabled": True}}}
    rig.set_teams(running, "a", "b")
    everything = ["create role/a", "create role/b", "create github/github"]
    assert sync(running) == everything, "roles first, because the connector names them"
    assert running.resources()[GITHUB]["spec"]["client_secret"] == SECRET
    assert sync(running) == []
    rig.set_teams(running, "a", "b", change={"github-client-secret": "another"})
    assert sync(running) == ["create github/github"]
    assert running.resources()[GITHUB]["spec"]["client_secret"] == "another"  # noqa: S105
    restart(running)
    assert sync(running) == everything, "a boot forgets what was applied"
    assert sync(running) == []
    rig.set_teams(running, "b", "c")
    # Role a allows nothing before anything else happens. The connector no longer names it before it is deleted.
    assert sync(running) == [*EMPTIED, "create role/c", "create github/github", "rm role/a"]


def test_a_removed_role_that_somebody_holds_allows_nothing_until_the_team_is_back(rig: Rig, running: Host) -> None:
    rig.set_teams(running, "a", "b")
    sync(running)
    set_holders(running, "a", "b")
    rig.set_teams(running, "b")
    assert sync(running) == [*EMPTIED, "create github/github"]
    left = running.resources()
    assert left["role/a"]["spec"].get("allow", {}) == {}
    lock = left["lock/teleport-eks-a"]
    assert lock["spec"]["target"] == {"role": "a"}
    assert lock["spec"]["expires"] == lock["metadata"]["expires"]
    assert sync(running) == [], "it waits and does not fail"
    rig.set_teams(running, "a", "b")
    assert sync(running) == ["create role/a", "rm lock/teleport-eks-a", "create github/github"]
    assert running.resources()["role/a"]["spec"]["allow"]["kubernetes_groups"] == ["dev"]
    rig.set_teams(running, "b")
    sync(running)
    set_holders(running, "b")
    assert sync(running) == ["rm role/a"]


def test_github_is_taken_out_of_the_stack(rig: Rig, running: Host) -> None:
    rig.set_teams(running, "a")
    sync(running)
    restart(running)  # the labels show what was applied, because a boot forgets it
    rig.world.set_parameters(running.config.parameters_path, {})
    assert sync(running) == [*EMPTIED, "rm github/github", "rm role/a"]


def bot() -> dict[str, Any]:
    """The parameters of a bot, and of no team."""
    listed: dict[str, Any] = {"kind": "bot", "version": "v1", "metadata": {"name": "a"}, "spec": {"roles": ["a"]}}
    rule = {"repository": "acme/shop", "environment": "production"}
    spec = {"roles": ["Bot"], "bot_name": "a", "join_method": "github", "github": {"allow": [rule]}}
    token = {"kind": "token", "version": "v2", "metadata": {"name": "a"}, "spec": spec}
    return {"roles/a": role("a"), "bots/a": listed, "tokens/a": token, **NO_CONNECTOR}


NO_CONNECTOR = {"github-connector": None, "github-client-secret": None}


def test_a_bot_comes_after_its_role_and_goes_before_it(rig: Rig, running: Host) -> None:
    rig.set_teams(running, change=bot())
    assert sync(running) == ["create role/a", "create bot/a", "create token/a"]
    assert sync(running) == []
    rig.set_teams(running, change=NO_CONNECTOR)
    assert sync(running) == [*EMPTIED, "rm bot/a", "rm token/a", "rm role/a"]
    rig.set_teams(running, change=bot())
    sync(running)
    wider = running.resources()["bot/a"]
    wider["spec"]["roles"] = ["a", "admin"]
    create_by_hand(running, wider)
    assert sync(running) == ["create bot/a"]
    assert running.resources()["bot/a"]["spec"]["roles"] == ["a"]


def test_a_change_by_hand_is_reverted(rig: Rig, running: Host) -> None:
    rig.set_teams(running, "a")
    sync(running)
    create_by_hand(running, role("a", "system:masters"), running.config.stack)
    for lost in ((), ("role/a",), ("role/a", GITHUB, CHECK)):
        running.write(
            BACKEND, json.dumps({name: item for name, item in running.resources().items() if name not in lost})
        )
        sync(running)
        assert running.resources()["role/a"]["spec"]["allow"]["kubernetes_groups"] == ["dev"], lost
        assert GITHUB in running.resources(), lost


def test_the_resources_of_others_stay_as_they_are(rig: Rig, running: Host) -> None:
    create_by_hand(running, role("admin", "admins"))
    create_by_hand(running, role("other"), "another")
    sync(running)
    before = running.resources()
    rig.set_teams(running, "a")
    sync(running)
    rig.set_teams(running, "a", "admin")
    refuse(running, "role/admin exists and is not this stack's")
    rig.world.set_parameters(running.config.parameters_path, {})
    sync(running)
    assert {name: item for name, item in running.resources().items() if not name.startswith("lock/")} == before


def test_what_cannot_be_read_changes_nothing(rig: Rig, running: Host) -> None:
    rig.set_teams(running, "a")
    sync(running)
    unknown = {**role("b"), "spec": {"allow": {"kubernets_groups": []}}}
    cases: list[tuple[str, Any, str]] = [
        ("github-client-secret", None, "github-client-secret is missing"),
        ("github-connector", "[]", "github-connector is not a JSON object"),
        ("roles/a", "{rubbish", "parameter roles/a is not JSON"),
        ("roles/a", '{"kind": "user"}', "is not a named resource of kind role"),
        ("roles/a", role("b"), "holds the role b"),
        ("roles/b", unknown, "kubernets_groups is not known"),
    ]
    for name, value, reason in cases:
        rig.set_teams(running, "a", change={name: value})
        refuse(running, reason)
    # The answers of SSM have ten parameters each: this one comes with the second.
    many = {f"roles/b{number}": role(f"b{number}") for number in range(10)}
    rig.set_teams(running, "a", change={**many, "roles/z": "{rubbish"})
    refuse(running, "parameter roles/z is not JSON")
    running.sh("systemctl stop teleport.service")
    rig.set_teams(running, "a", "b")
    refuse(running, "the auth service is not running")
    running.sh("systemctl start teleport.service")
    assert sync(running)


def test_the_secret_is_in_no_log_and_on_no_disk(rig: Rig, running: Host) -> None:
    rig.set_teams(running, change={"github-connector": connector("admin")})
    # This tctl repeats its input when it fails.
    running.break_command("tctl", "echo", times=3, text="create")
    runs = [running.fail(ACCESS, "tctl .* create"), running.start(ACCESS)]
    running.repair()
    create_by_hand(running, role("admin"))
    let_caches_settle(running)
    runs.append(running.succeed(ACCESS))
    assert not [run for run in runs if SECRET in run.console + run.journal]
    let_caches_settle(running)
    assert running.places(SECRET) == [BACKEND], "only Teleport has it"

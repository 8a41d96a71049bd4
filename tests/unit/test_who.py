"""Which people have access: what is asked, what a refusal says, and which differences the report shows."""

import base64
import gzip
import json
import re
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber

from fleet import who
from sandbox.account import REGION, Account, made_up
from teleport_eks.access import AdditionalCluster, Bot, Grant
from teleport_eks.settings import parse
from teleport_eks.team_access import role

INSTANCE = "i-0123456789abcdef0"
DEV = {
    "organization": "acme",
    "team": "dev",
    "kubernetesGroups": ["dev"],
    "clusterRole": "edit",
    "namespaces": ["shop"],
}
NAME = "kube-acme-dev"
MAPPING = {"organization": "acme", "team": "dev", "roles": [NAME]}
NEVER, LONG_AGO = "2999-01-01T00:00:00Z", "2000-01-01T00:00:00Z"


def settings(*teams: dict[str, Any]) -> Any:
    return parse({"clusterName": "demo", "acmeEmail": "a@example.com", "teams": json.dumps(teams)}, "prod")


DOCUMENT = role(Grant(settings(DEV).teams[0]), settings(DEV), "prod")
ALLOW = DOCUMENT["spec"]["allow"]


def stored(*roles: dict, mappings: Any = (MAPPING,)) -> dict[str, Any]:
    return {"roles": {item["metadata"]["name"]: item for item in roles}, "mappings": list(mappings), "bots": {}}


def host(allow: dict | None = ALLOW, mappings: Any = (MAPPING,), **more: Any) -> dict[str, Any]:
    roles = [] if allow is None else [{"name": NAME, "allow": allow}]
    return {"roles": roles, "mappings": list(mappings), "people": [], "locks": [], "bots": [], "ended": {}, **more}


@pytest.fixture
def ssm() -> Any:
    return boto3.client("ssm", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")  # noqa: S106


def answered(ssm: Any, status: str, output: str = "", error: str = "") -> Any:
    """What ``ask`` returns if the command ends so."""
    with Stubber(ssm) as stub:
        parameters = {"commands": [who.COMMAND], "executionTimeout": ["60"]}
        expected = {"InstanceIds": [INSTANCE], "DocumentName": "AWS-RunShellScript", "Parameters": parameters}
        sent = {"Command": {"CommandId": "c" * 36}}
        stub.add_response("send_command", sent, {**expected, "Comment": ANY, "TimeoutSeconds": ANY})
        invocation = {
            "Status": status,
            "StatusDetails": status,
            "StandardOutputContent": output,
            "StandardErrorContent": error,
        }
        for _ in ("the waiter", "we"):
            stub.add_response("get_command_invocation", invocation, {"CommandId": "c" * 36, "InstanceId": INSTANCE})
        return who.ask(ssm, INSTANCE)


def packed(value: Any) -> str:
    return base64.b64encode(gzip.compress(json.dumps(value).encode())).decode()


def test_the_host_is_asked_by_session_manager(ssm: Any) -> None:
    assert answered(ssm, "Success", packed(host())) == host()


@pytest.mark.parametrize(
    ("status", "output", "error", "says"),
    [
        ("Failed", "", "tctl get roles: connection refused\n", "ended with Failed. tctl get roles: connection refused"),
        ("TimedOut", "", "", "ended with TimedOut"),
        ("Success", packed({"ended": [str(n) for n in range(30_000)]})[:24_000], "", "24,000 characters"),
    ],
)
def test_an_answer_that_is_none(ssm: Any, status: str, output: str, error: str, says: str) -> None:
    with pytest.raises(who.NotAnsweredError, match=says):
        answered(ssm, status, output, error)


def test_a_refusal_says_what_the_role_needs(ssm: Any) -> None:
    with Stubber(ssm) as stub:
        stub.add_client_error("send_command", "AccessDeniedException")
        with pytest.raises(who.NotAnsweredError, match="needs ssm:SendCommand on the instance"):
            who.ask(ssm, INSTANCE)


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    with made_up() as made:
        yield made


def test_without_a_host_or_a_stack_one_line_says_so(account: Account) -> None:
    with pytest.raises(who.NotAnsweredError, match="run `pulumi up`"):
        who.ask(account.client("ssm"), "")
    with pytest.raises(who.NotAnsweredError, match=f"no host answers for {INSTANCE}"):
        who.ask(account.client("ssm"), INSTANCE)


def test_ssm_is_read_without_its_secret(account: Account) -> None:
    ssm = account.client("ssm")
    values = {f"roles/{NAME}": DOCUMENT, "github-connector": {"spec": {"teams_to_roles": [MAPPING]}}}
    for name, value in values.items():
        ssm.put_parameter(Name=f"/teleport-eks/prod/{name}", Value=json.dumps(value), Type="String")
    ssm.put_parameter(Name="/teleport-eks/prod/github-client-secret", Value="hidden", Type="SecureString")
    bot = {"spec": {"roles": ["kube-bot-x"]}}
    ssm.put_parameter(Name="/teleport-eks/prod/bots/x", Value=json.dumps(bot), Type="String")
    assert who.parameters(ssm, "prod") == stored(DOCUMENT) | {"bots": {"x": ["kube-bot-x"]}}


def test_the_credentials_are_those_of_the_stacks_file(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in account.environment().items():
        monkeypatch.setenv(name, value)
    given = {"aws:region": "eu-north-1", "aws:assumeRoles": [{"roleArn": "arn:aws:iam::123456789012:role/auditor"}]}
    session = who._session(given)
    assert session.region_name == "eu-north-1"
    assert ":assumed-role/auditor/" in session.client("sts").get_caller_identity()["Arn"]


NOT_THERE = "in Teleport: see `systemctl status teleport-access` on the host"
OPS, ADMINS = {**DEV, "kubernetesGroups": ["ops"]}, {**ALLOW, "kubernetes_groups": ["admins"]}
ALL, NONE, UNMAPPED = stored(DOCUMENT), stored(mappings=()), stored(DOCUMENT, mappings=())


@pytest.mark.parametrize(
    ("teams", "in_ssm", "on_host", "state"),
    [
        ([DEV], ALL, host(), "applied"),
        ([DEV], ALL, None, "in the file and in SSM"),
        ([DEV], NONE, host(None, ()), "is only in the stack's file: run `pulumi up`"),
        ([], ALL, host(), "is not in the stack's file: run `pulumi up`"),
        ([OPS], ALL, host(), "differs from the stack's file: run `pulumi up`"),
        ([DEV], UNMAPPED, host(mappings=()), "applied; nobody can sign in until there is a GitHub connector"),
        ([DEV], ALL, host(None), f"is not {NOT_THERE}"),
        ([DEV], ALL, host(ADMINS), f"is another one {NOT_THERE}"),
        ([DEV], ALL, host(mappings=()), "applied; Teleport gives it to nobody who signs in"),
        ([], NONE, host({}, ()), "removed: allows nothing"),
        ([], NONE, host(mappings=()), "not from the stack: made with tctl"),
        ([], NONE, host(None), "not from the stack: made with tctl; Teleport gives it to acme/dev"),
    ],
)
def test_where_a_role_is_on_its_way(teams: list[dict], in_ssm: dict, on_host: dict | None, state: str) -> None:
    (row,) = who.report(settings(*teams), "prod", in_ssm, on_host)["teams"]
    assert (row["role"], row["state"]) == (NAME, state)


def test_what_counts_is_what_teleport_has() -> None:
    changed = host({**ALLOW, "kubernetes_groups": ["admins"]})
    (row,) = who.report(settings(DEV), "prod", stored(DOCUMENT), changed)["teams"]
    assert (row["kubernetesGroups"], row["clusterRole"], row["namespaces"]) == (["admins"], "edit", ["shop"])


def lock(until: str | None, **target: str) -> dict[str, Any]:
    return {"lock": "an-id", "target": target, "until": until, "message": "laptop lost"}


@pytest.mark.parametrize(
    ("allow", "locks", "state"),
    [
        (ALLOW, [], "signed in"),
        (ALLOW, [lock(NEVER, user="ada")], "locked: laptop lost"),
        (ALLOW, [lock(None, role=NAME)], "locked: laptop lost"),
        (ALLOW, [lock(LONG_AGO, user="ada"), lock(NEVER, user="ben")], "signed in"),
        ({}, [], "no access: no role allows anything"),
    ],
)
def test_what_a_person_can_do(allow: dict, locks: list[dict], state: str) -> None:
    ada = {"person": "ada", "roles": [NAME], "signedIn": LONG_AGO, "until": NEVER, "state": "signed in"}
    answer = host(allow, people=[ada], locks=locks, ended={"old": LONG_AGO, "new": NEVER})
    found = who.report(settings(DEV), "prod", stored(DOCUMENT), answer)
    assert [person["person"] for person in found["people"]] == ["ada", "new", "old"]
    assert found["people"][0]["state"] == state
    assert LONG_AGO not in [item["until"] for item in found["locks"]], "it has ended"


def test_which_clusters_a_role_is_for() -> None:
    tools = [{"clusterName": "tools", "teams": [TEAM_OF_TOOLS]}, {"clusterName": "same"}]
    given = settings(DEV).model_copy(
        update={"additional_clusters": tuple(map(AdditionalCluster.model_validate, tools))}
    )
    roles = [role(grant, given, "prod") for grant in given.grants]
    found = who.report(given, "prod", stored(*roles, mappings=()), None)
    assert {row["role"]: row["clusters"] for row in found["teams"]} == {
        NAME: ["demo", "same"],
        "kube.tools.acme-ops": ["tools"],
    }
    by_hand = role(Grant(given.teams[0]), given, "prod")
    del by_hand["spec"]["allow"]["kubernetes_labels"]
    by_hand["spec"]["allow"]["kubernetes_labels_expression"] = 'labels["env"] == "x"'
    (row, _) = who.report(given, "prod", stored(by_hand, mappings=()), None)["teams"]
    assert row["clusters"] == ['labels["env"] == "x"']


def test_the_tables_have_what_the_json_has() -> None:
    answer = host(locks=[lock(NEVER, user="ada")], bots=[{"bot": "ci", "roles": [NAME]}])
    found = who.report(settings(DEV), "prod", stored(DOCUMENT), answer)
    shown = who.text({"stack": "prod", "hostname": None, "problem": "", **found})
    assert (
        "TEAM      ROLE           CLUSTERS  KUBERNETES GROUPS  CLUSTER ROLE  NAMESPACES  LOGINS  AUDITOR  STATE\n"
        in shown
    )
    assert (
        f"acme/dev  {NAME}  demo      dev                edit          shop        -       -        applied\n" in shown
    )
    assert f"an-id  user ada  {NEVER}  laptop lost\n" in shown
    assert re.search(f"\nci +- +{NAME} +demo +dev +edit +shop +not from the stack", shown)


TEAM_OF_TOOLS = {"organization": "acme", "team": "ops", "kubernetesGroups": ["ops"]}
BOT = {"repository": "acme/shop", "environment": "live", "kubernetesGroups": ["shop"]}
OF_SHOP = {"bot": "acme-shop-live", "roles": ["kube-bot-acme-shop-live"]}


@pytest.mark.parametrize(
    ("listed", "in_ssm", "in_teleport", "state"),
    [
        (True, True, [OF_SHOP], "applied"),
        (True, True, [], f"is another one {NOT_THERE}"),
        (True, True, [OF_SHOP | {"roles": ["kube-bot-acme-shop-live", NAME]}], f"is another one {NOT_THERE}"),
        (True, True, None, "in the file and in SSM"),
        (True, False, [], "is only in the stack's file: run `pulumi up`"),
        (False, True, [OF_SHOP], "is not in the stack's file: run `pulumi up`"),
    ],
)
def test_where_a_bot_is_on_its_way(listed: bool, in_ssm: bool, in_teleport: list | None, state: str) -> None:
    given = parse({"clusterName": "demo", "acmeEmail": "a@example.com", "bots": json.dumps([BOT] * listed)}, "prod")
    document = role(Grant(Bot.model_validate(BOT)), given, "prod")
    role_of_it = {"name": document["metadata"]["name"], "allow": document["spec"]["allow"]}
    ssm = stored(*[document] * in_ssm, mappings=()) | {"bots": {OF_SHOP["bot"]: OF_SHOP["roles"]} if in_ssm else {}}
    answer = None if in_teleport is None else host(None, (), bots=in_teleport) | {"roles": [role_of_it] * in_ssm}
    found = who.report(given, "prod", ssm, answer)
    row, *_ = found["bots"]  # one for each role
    assert (row["bot"], row["jobs"], row["state"]) == (
        "acme-shop-live",
        "acme/shop, environment live" if listed else None,
        state,
    )
    assert row["kubernetesGroups"][:1] == ["shop"]
    assert found["teams"] == []

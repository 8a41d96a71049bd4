"""Bad input: one message with all errors, each with key, value, rule and the YAML to write."""

import json
import re

import jsonschema
import pytest
import yaml
from pulumi.runtime import set_all_config

from docs.generate import ROOT, generated
from teleport_eks.errors import ConfigurationError
from teleport_eks.settings import Settings, load, parse
from tests.examples import CONFIG

TEAM = {"organization": "acme", "team": "platform", "kubernetesGroups": ["platform"]}


def message(**config: object) -> str:
    """What the operator reads for ``config`` over a good one; None takes a key away."""
    given = {**CONFIG, **config}
    text = {k: v if isinstance(v, str) else json.dumps(v) for k, v in given.items() if v is not None}
    with pytest.raises(ConfigurationError) as refused:
        parse(text, "dev")
    return str(refused.value)


def team(**change: object) -> list[dict]:
    return [{key: value for key, value in {**TEAM, **change}.items() if value is not None}]


def auditors(**change: object) -> list[dict]:
    return team(kubernetesGroups=None, auditor=True, **change)


def bot(**change: object) -> list[dict]:
    """With neither an environment nor a branch, if ``change`` names none."""
    return [{"repository": "acme/shop", "kubernetesGroups": ["shop"], **change}]


HA = {"topology": "ha", "domainName": "teleport.example.com", "hostedZone": "example.com"}
TOOLS = {"clusterName": "tools"}


def clusters(*listed: dict) -> str:
    return json.dumps(listed)


def ranges(count: int) -> list[str]:
    return [f"10.0.0.{number}/32" for number in range(count)]


# What is set, and the key, the value and a part of the rule in the message.
BAD = [
    ({"acmeEmail": None}, "acmeEmail", "(not set)", "required"),
    ({"acmeEmail": "platform"}, "acmeEmail", "platform", "e-mail"),
    ({"clusterNam": "demo"}, "clusterNam", "demo", "the nearest is clusterName"),
    ({"admin_cidrs": "[]"}, "admin_cidrs", "[]", "the nearest is adminCidrs"),
    ({"adminCidrs": ["10.0.0"]}, "adminCidrs[0]", "10.0.0", "203.0.113.7/32"),
    ({"clientCidrs": ["10.0.0.1/8"]}, "clientCidrs[0]", "10.0.0.1/8", "write 10.0.0.0/8"),
    ({"clientCidrs": ["::/0"]}, "clientCidrs[0]", "::/0", "IPv4"),
    ({"adminCidrs": "10.0.0.0/8"}, "adminCidrs", "10.0.0.0/8", "YAML list"),
    ({"adminCidrs": ["0.0.0.0/0"]}, "adminCidrs", "0.0.0.0/0", "allowOpenAdminCidrs: true"),
    ({"adminCidrs": ["0.0.0.0/1"]}, "adminCidrs", "0.0.0.0/1", "allowOpenAdminCidrs: true"),
    ({"clientCidrs": ["10.0.0.1", "10.0.0.1/32"]}, "clientCidrs", "10.0.0.1", "10.0.0.1/32 is listed twice"),
    ({"adminCidrs": ["10.0.0.0/8", "10.0.0.0/8"]}, "adminCidrs", "10.0.0.0/8", "is listed twice"),
    (
        {"clientCidrs": ranges(15)},
        "clientCidrs",
        "10.0.0.0/32",
        "make 61 firewall rules, and a security group takes 60",
    ),
    ({"domainName": "a.example.com", "hostedZone": "b.com"}, "hostedZone", "b.com", "a.example.com is not in the zone"),
    ({"domainName": "notexample.com", "hostedZone": "example.com"}, "hostedZone", "example.com", "is not in the zone"),
    ({"domainName": "a.example.com"}, "hostedZone", "(not set)", "go together"),
    ({"teleportVersion": "18.7.3"}, "teleportVersion", "18.7.3", "at least 18.7.4"),
    ({"teleportVersion": "17.7.25"}, "teleportVersion", "17.7.25", "at least 17.7.26"),
    ({"teleportVersion": "16.5.0"}, "teleportVersion", "16.5.0", "at least"),
    ({"teleportVersion": "latest"}, "teleportVersion", "latest", "must be a release"),
    ({"teleportSha256": "abc"}, "teleportSha256", "abc", "64 hexadecimal"),
    ({"instanceType": "mac2.metal"}, "instanceType", "mac2.metal", "t4g.small"),
    ({"instanceType": "t2.small"}, "instanceType", "t2.small", "t3, m5, c5, r5 or newer"),
    ({"instanceType": "t3.nano"}, "instanceType", "t3.nano", "at least 2 GiB of memory"),
    ({"instanceType": "t4g.micro"}, "instanceType", "t4g.micro", "at least 2 GiB of memory"),
    ({"instanceType": "small"}, "instanceType", "small", "t3.small"),
    ({"accessMode": "iam"}, "accessMode", "iam", "'aws-auth'"),
    ({"githubClientId": "Iv1.1"}, "githubClientSecret", "(not set)", "go together"),
    ({"githubClientSecret": "hush"}, "githubClientSecret", "(secret)", "go together"),
    ({"teams": team(organization=None)}, "teams[0].organization", "(not set)", "required"),
    ({"teams": team(team="Platform")}, "teams[0].team", "Platform", "slug"),
    ({"teams": team(kubernetesGroups=[])}, "teams[0].kubernetesGroups", "[]", "at least one"),
    ({"teams": team(groups=["x"])}, "teams[0].groups", "x", "the nearest is kubernetesGroups"),
    ({"teams": team() * 2}, "teams", "platform", "acme/platform is listed twice"),
    ({"teams": team() + team(organization="ACME", team="shop")}, "teams", "ACME", "acme and ACME are one organization"),
    (
        {"teams": team(organization="a-b", team="c") + team(organization="a", team="b-c")},
        "teams",
        "b-c",
        "both get the",
    ),
    ({"teams": auditors(clusterRole="view")}, "teams[0].clusterRole", "view", "needs kubernetesGroups"),
    ({"teams": team(kubernetesGroups=None)}, "teams[0].kubernetesGroups", "(not set)", "at least"),
    ({"sessionTtl": "31h"}, "sessionTtl", "31h", "at most 30h"),
    ({"sessionTtl": "0m"}, "sessionTtl", "0m", "such as 12h"),
    ({"sessionTtl": "12"}, "sessionTtl", "12", "such as 12h"),
    ({"maintenanceWindow": "Sunday"}, "maintenanceWindow", "Sunday", "such as Sun 03:00, or none"),
    ({"teams": team(kubernetesGroups=["system:nodes"])}, "teams[0].kubernetesGroups[0]", "system:nodes", "system:"),
    ({"teams": team(kubernetesGroups=["system:masters"])}, "teams", "system:masters", "allowSystemMasters: true"),
    ({"teams": team(kubernetesGroups=["*"])}, "teams[0].kubernetesGroups[0]", "*", "without '*'"),
    ({"teams": team(namespaces=["shop"])}, "teams[0].namespaces", "shop", "needs clusterRole"),
    ({"kubeconfig": "nowhere/config"}, "kubeconfig", "(secret)", "No such file"),
    ({"kubeconfig": "{a: 1}"}, "kubeconfig", "(secret)", "must be a kubeconfig"),
    ({"kubeconfig": "- clusters\n- a"}, "kubeconfig", "(secret)", "must be a kubeconfig"),
    ({"protect": "perhaps"}, "protect", "perhaps", "true or false"),
    ({"dataSnapshotId": "vol-1"}, "dataSnapshotId", "vol-1", "snapshot's id"),
    ({"dataVolumeSize": "5"}, "dataVolumeSize", "5", "must be at least 10"),
    ({"waitMinutes": "long"}, "waitMinutes", "long", "must be a whole number"),
    ({"alarmTopicArn": "on-call"}, "alarmTopicArn", "on-call", "must be the ARN of a standard SNS topic"),
    ({"alarmTopicArn": "arn:aws:sns:x:111122223333:a.fifo"}, "alarmTopicArn", "a.fifo", "a standard SNS topic"),
    ({"logRetentionDays": "31"}, "logRetentionDays", "31", "must be 0, or what CloudWatch Logs takes: 1, 3, 5"),
    ({"teams": ["acme/platform"]}, "teams[0]", "acme/platform", "must be a map with the keys of a Team"),
    ({"bots": bot()}, "bots[0].branch", "(not set)", "one of the two"),
    ({"bots": bot(environment="live", branch="main")}, "bots[0].branch", "main", "an environment or a branch"),
    ({"bots": bot(branch="refs/heads/*")}, "bots[0].branch", "refs/heads/*", "without refs/heads/"),
    ({"bots": bot(branch="refs/heads/main")}, "bots[0].branch", "refs/heads/main", "without refs/heads/"),
    ({"bots": bot(repository="acme/*", branch="main")}, "bots[0].repository", "acme/*", "as owner/name"),
    ({"bots": bot(repository="shop", branch="main")}, "bots[0].repository", "shop", "as owner/name"),
    ({"bots": bot(environment="*")}, "bots[0].environment", "*", "one GitHub environment"),
    ({"bots": bot(branch="main", kubernetesGroups=[])}, "bots[0].kubernetesGroups", "[]", "or the bot can do nothing"),
    ({"bots": bot(branch="main", kubernetesGroups=["system:masters"])}, "bots", "system:masters", "allowSystemMasters"),
    ({"bots": bot(branch="main", logins=["root"])}, "bots[0].logins", "root", "no such key"),
    ({"bots": bot(branch="main") * 2}, "bots", "main", "acme/shop, branch main is listed twice"),
    ({"bots": bot(branch="a/b") + bot(branch="a-b")}, "bots", "a/b", "both get the name bot-acme-shop-a-b"),
    (
        {"teams": team(organization="bot", team="acme-shop-a"), "bots": bot(branch="a")},
        "bots",
        "a",
        "both get the name",
    ),
    ({**HA, "hostUpdates": "in-place"}, "hostUpdates", "in-place", "one after the other"),
    ({**HA, "dataSnapshotId": "snap-00000001"}, "dataSnapshotId", "snap-00000001", "has no data volume"),
    ({**HA, "subnetId": "subnet-00000001"}, "subnetId", "subnet-00000001", "chooses their subnets itself"),
    ({"additionalClusters": clusters({})}, "additionalClusters[0].clusterName", "(not set)", "required"),
    ({"additionalClusters": clusters(TOOLS, TOOLS)}, "additionalClusters", "", "tools is listed twice"),
    ({"additionalClusters": clusters({"clusterName": "demo"})}, "additionalClusters", "", "demo is listed twice"),
    (
        {"additionalClusters": clusters(TOOLS | {"team": []})},
        "additionalClusters[0].team",
        "[]",
        "no such key; the nearest is teams",
    ),
    (
        {"additionalClusters": clusters(TOOLS | {"teams": team(team="Web Team")})},
        "additionalClusters[0].teams[0].team",
        "Web Team",
        "the team's slug",
    ),
    (
        {"additionalClusters": clusters(TOOLS | {"teams": team(logins=["deploy"])})},
        "additionalClusters[0].teams",
        "",
        "set them in teleport-eks:teams",
    ),
    (
        {"additionalClusters": clusters(TOOLS | {"teams": team() * 2})},
        "additionalClusters[0].teams",
        "",
        "acme/platform is listed twice",
    ),
    (
        {"additionalClusters": clusters(TOOLS | {"bots": bot(branch="main") * 2})},
        "additionalClusters[0].bots",
        "",
        "acme/shop, branch main is listed twice",
    ),
    (
        {"additionalClusters": clusters(TOOLS | {"teams": team(kubernetesGroups=["system:masters"])})},
        "additionalClusters",
        "",
        "allowSystemMasters: true",
    ),
    (
        {"teams": team(organization="Acme"), "additionalClusters": clusters(TOOLS | {"teams": team()})},
        "additionalClusters",
        "",
        "are one organization",
    ),
    (
        {
            "bots": bot(branch="x"),
            "additionalClusters": clusters(
                TOOLS | {"bots": bot(repository="acme/shop-x", branch="y"), "teams": []},
                {"clusterName": "more", "bots": bot(repository="acme-shop/x", branch="y")},
            ),
        },
        "additionalClusters",
        "",
        "both get the name bot-acme-shop-x-y",
    ),
    (
        {"additionalClusters": clusters(TOOLS), "kubeconfig": "clusters: []\ncontexts: [{context: {}}]"},
        "kubeconfig",
        "(secret)",
        "has no context named tools",
    ),
    (
        {"additionalClusters": clusters(TOOLS), "kubeconfig": "clusters: []\ncontexts: [{name: demo}]"},
        "kubeconfig",
        "(secret)",
        "has no context named tools",
    ),
]


@pytest.mark.parametrize(("config", "key", "value", "rule"), BAD, ids=[rule for *_, rule in BAD])
def test_a_bad_value_is_refused(config: dict, key: str, value: str, rule: str) -> None:
    text = message(**config)
    assert text.startswith("1 problem in Pulumi.dev.yaml. Nothing was created or changed.")
    problem = re.search(r"\n\n  (\S+)\n    value: (.*)\n    rule:  (.*)\n    write: (.+)", text, re.DOTALL)
    assert problem, text
    assert problem[1] == f"teleport-eks:{key}"
    assert value in problem[2]
    assert rule in problem[3]


def test_all_problems_are_in_one_message() -> None:
    text = message(
        clusterName=None, acmeEmail="x", adminCidrs=["1.2.3", "0.0.0.0/0/0"], teams=team(team="A B"), topology="x"
    )
    keys = re.findall(r"^  teleport-eks:(\S+)$", text, re.MULTILINE)
    assert keys == ["clusterName", "acmeEmail", "topology", "adminCidrs[0]", "adminCidrs[1]", "teams[0].team"]
    assert text.startswith("6 problems")


def test_ha_names_all_that_it_needs_and_all_that_is_about_one_host() -> None:
    one_host = {"hostUpdates": "in-place", "dataSnapshotId": "snap-00000001", "subnetId": "subnet-00000001"}
    text = message(topology="ha", **one_host)
    written = dict(re.findall(r"^  teleport-eks:(\S+)$.*?    write: (.+?)$", text, re.MULTILINE | re.DOTALL))
    assert written == {
        "domainName": "teleport-eks:domainName: teleport.example.com",
        "hostedZone": "teleport-eks:hostedZone: example.com",
        "hostUpdates": "teleport-eks:hostUpdates: replace",
        "subnetId": "pulumi config rm teleport-eks:subnetId",
        "dataSnapshotId": "pulumi config rm teleport-eks:dataSnapshotId",
    }
    assert parse({**CONFIG, **HA, "recordingsDays": "90"}, "dev").recordings_in_s3


def test_what_the_messages_say_to_write_is_accepted() -> None:
    fixed = dict(CONFIG)
    for config, *_ in BAD:
        for line in re.findall(r"write: (teleport-eks:.*?)(?:\n\n|\Z)", message(**config), re.DOTALL):
            (key, value), *_ = yaml.safe_load(line).items()
            fixed[key.removeprefix("teleport-eks:")] = value if isinstance(value, str) else json.dumps(value)
    fixed |= {"domainName": "teleport.example.com"}
    assert len(fixed) > 8
    parse(fixed, "dev")


def test_sixty_firewall_rules_are_accepted() -> None:
    zone = {"domainName": "teleport.example.com", "hostedZone": "example.com"}
    full = {"clientCidrs": json.dumps(ranges(12)), "adminCidrs": json.dumps(ranges(4))}
    assert parse({**CONFIG, **zone, **full}, "x")
    assert "make 61 firewall rules" in message(**full)  # port 80 too, without a zone
    assert "make 64 firewall rules" in message(**HA, **full)  # of the balancer and the other host too


@pytest.mark.parametrize("key", ["githubClientSecret", "githubClientSecre", "kubeconfig"])
def test_a_secret_is_never_repeated(key: str) -> None:
    assert "hunter2" not in message(**{key: "hunter2"})


def test_an_empty_value_counts_as_not_set() -> None:
    assert parse({**CONFIG, "githubClientId": "", "teams": ""}, "x") == parse(CONFIG, "x")


def test_an_empty_kubeconfig_as_kubectl_writes_it_is_accepted() -> None:
    given = {**CONFIG, "additionalClusters": clusters(TOOLS), "kubeconfig": "clusters: null\ncontexts: null"}
    assert parse(given, "x").kubeconfig_for("tools") == "clusters: null\ncontexts: null\ncurrent-context: tools\n"


def test_good_values_are_accepted() -> None:
    masters = team(kubernetesGroups=["system:masters"], clusterRole="edit", namespaces=["shop"], logins=["deploy"])
    config = {
        **CONFIG,
        "adminCidrs": '["0.0.0.0/0", "203.0.113.7/32"]',
        "allowOpenAdminCidrs": "true",
        "domainName": "teleport.example.com",
        "hostedZone": "example.com",
        "teleportVersion": "17.7.26",
        "githubClientId": "Iv1.1",
        "githubClientSecret": "hush",
        "allowSystemMasters": "true",
        "teams": json.dumps(masters),
    }
    settings = parse(config, "x")
    assert settings.teams[0].kubernetes_groups == ("system:masters",)
    assert settings.admin_cidrs == ("0.0.0.0/0", "203.0.113.7/32")
    assert len(settings.warnings()) == 2
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("instance_type", "expected"),
    [
        ("t3.small", "amd64"),
        ("t3a.medium", "amd64"),
        ("m7i-flex.large", "amd64"),
        ("t4g.small", "arm64"),
        ("c7gn.2xlarge", "arm64"),
        ("r8gd.metal-24xl", "arm64"),
    ],
)
def test_the_architecture_follows_the_instance_type(instance_type: str, expected: str) -> None:
    assert parse({**CONFIG, "instanceType": instance_type}, "x").architecture == expected


@pytest.mark.parametrize("name", generated())
def test_the_generated_files_are_current(name: str) -> None:
    assert (ROOT / name).read_text() == generated()[name], "run `make docs`"


def test_the_project_file_declares_every_key() -> None:
    declared = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
    assert list(declared) == [field.alias for field in Settings.model_fields.values()]
    assert all("default" in key for key in declared.values()), "the CLI asks for a key that has none"


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({}, True),
        ({"teleport-eks:githubClientSecret": {"secure": "v1:x"}}, True),
        ({"teleport-eks:protect": "maybe"}, True),  # its rule is the program's to know
        ({"aws:profile": "x"}, True),
        ({"teleport-eks:acmeEmail": ""}, True),
        ({"teleport-eks:acmeEmail": "platform"}, False),
        ({"teleport-eks:subnetId": "subnet-x"}, False),
        ({"teleport-eks:adminCidrs": ["10.0.0"]}, False),
        ({"teleport-eks:teams": [{"organization": "acme", "team": "The Platform"}]}, False),
        ({"teleport-eks:clusterNam": "x"}, False),
        ({"teleport-eks:githubClientSecret": {"plain": "x"}}, False),
        ({"teleport-eks:teams": [{"organization": "acme"}]}, False),
        ({"teleport-eks:accessMode": ["auto"]}, False),
    ],
)
def test_the_editors_schema_checks_a_stack_file(change: dict, valid: bool) -> None:
    schema = json.loads((ROOT / "docs/stack.schema.json").read_text())
    stack = yaml.safe_load((ROOT / "Pulumi.dev.yaml").read_text())
    stack["config"] |= change
    assert jsonschema.Draft202012Validator(schema).is_valid(stack) == valid


def test_a_client_secret_in_plain_text_is_refused() -> None:
    config = {**CONFIG, "githubClientId": "Iv1.1", "githubClientSecret": "hunter2"}
    named = {f"teleport-eks:{key}": value for key, value in config.items()}
    set_all_config(named, ["teleport-eks:githubClientSecret"])
    assert load("dev").github_client_secret
    set_all_config(named, [])
    with pytest.raises(ConfigurationError, match="is in plain text") as refused:
        load("dev")
    assert "hunter2" not in str(refused.value)

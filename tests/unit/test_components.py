"""What the components decide, and what they declare of it."""

import ast
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from kubernetes import client

from components.address import ProxyAddress, ProxyAddressArgs, callback_url, dynamic_hostname
from components.aws_auth import configmap
from components.aws_auth.text import Entry, add
from components.cluster import Cluster, Site
from components.cluster_access import Names, entry_lost_at, impersonation_rules, impersonators
from components.credentials import Credentials
from components.host import ProxyHost, ProxyHostArgs
from components.identity import ProxyIdentity, ProxyIdentityArgs, permissions
from components.network import ProxyNetwork, ProxyNetworkArgs, Rule, rules
from components.next_steps import next_steps
from components.proxy import TeleportProxy, TeleportProxyArgs
from components.settings import Settings, Team, parse
from components.storage import ProxyStorage, ProxyStorageArgs
from components.subnets import Subnet
from components.team_access import SHARED_USER, TeamAccess, TeamAccessArgs, connector, role
from sandbox.strict_account import EC2_TEXT
from tests.recorder import plain, record

ROOT = Path(__file__).parents[2]
ARN = "arn:aws:eks:eu-west-1:111122223333:cluster/demo"
PARAMETERS = "arn:aws:ssm:eu-west-1:111122223333:parameter/teleport-eks/dev"
ROLE = "arn:aws:iam::111122223333:role/proxy"
ZONE = "arn:aws:route53:::hostedzone/Z1"
PLATFORM = Team.model_validate(
    {"organization": "Acme", "team": "platform", "logins": ["deploy"], "kubernetesGroups": ["platform", "oncall"]}
)
CLUSTER = Cluster(
    name="demo",
    arn=ARN,
    endpoint="https://demo.eks",
    certificate_authority="Q0E=",
    authentication_mode="API_AND_CONFIG_MAP",
    vpc_id="vpc-1",
    security_group_id="sg-cluster",
    endpoint_public_access=True,
    endpoint_private_access=True,
    public_access_cidrs=("0.0.0.0/0",),
)
PUBLIC = Subnet("subnet-2", "vpc-1", "10.0.2.0/24", "eu-west-1b", {"Name": "b-public"})
SITE = Site(CLUSTER, PUBLIC, "aws-auth", Names())


def settings(**config: str) -> Settings:
    return parse({"clusterName": "demo", "acmeEmail": "platform@example.com", **config}, "dev")


# identity


def test_every_permission_names_what_it_is_for() -> None:
    resources = {json.dumps(s["Resource"]) for s in permissions(ARN, PARAMETERS, ZONE)["Statement"]}
    assert resources == {
        json.dumps(ARN),
        json.dumps([PARAMETERS, f"{PARAMETERS}/*"]),
        json.dumps(ZONE),
        '"arn:aws:route53:::change/*"',
    }
    assert "*" not in {s["Action"] for s in permissions(ARN, PARAMETERS, ZONE)["Statement"]}


def test_only_a_proxy_with_a_zone_may_write_to_it() -> None:
    assert [s["Sid"] for s in permissions(ARN, PARAMETERS)["Statement"]] == ["Cluster", "Parameters"]


def test_the_role_is_for_ec2_only_and_has_the_policy_that_was_decided() -> None:
    declared = record(lambda: ProxyIdentity("proxy", ProxyIdentityArgs("aws-cn", ARN, PARAMETERS)))
    trust = json.loads(declared.only("aws:iam/role:Role")["assumeRolePolicy"])
    assert [s["Principal"] for s in trust["Statement"]] == [{"Service": "ec2.amazonaws.com"}]
    assert "name" not in declared.only("aws:iam/role:Role")
    assert json.loads(declared.only("aws:iam/rolePolicy:RolePolicy")["policy"]) == permissions(ARN, PARAMETERS)
    attached = declared.only("aws:iam/rolePolicyAttachment:RolePolicyAttachment")["policyArn"]
    assert attached == "arn:aws-cn:iam::aws:policy/AmazonSSMManagedEC2InstanceDefaultPolicy"
    assert declared.only("aws:iam/instanceProfile:InstanceProfile")["role"] == "proxy-role"


# network

INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"


def test_by_default_nobody_reaches_an_admin_port() -> None:
    allowed = rules(("0.0.0.0/0",), (), http_challenge=True)
    assert {rule.port for rule in allowed} == {80, 3023, 3024, 3026, 3080}


def test_each_audience_has_its_ports_and_no_other() -> None:
    allowed = rules(("10.0.0.0/8", "192.0.2.0/24"), ("203.0.113.7/32",), http_challenge=False)
    assert {rule.port for rule in allowed if rule.cidr == "203.0.113.7/32"} == {22, 3022, 3025}
    assert {rule.port for rule in allowed if rule.cidr == "192.0.2.0/24"} == {3023, 3024, 3026, 3080}
    assert len(allowed) == 3 + 2 * 4


def test_every_rule_is_a_resource_of_its_own_and_the_cluster_gets_one() -> None:
    wanted = [Rule(3080, "10.0.0.0/8", "web"), Rule(22, "203.0.113.7/32", "SSH")]
    declared = record(lambda: ProxyNetwork("proxy", ProxyNetworkArgs("vpc-1", "sg-cluster", wanted)))
    group = declared.only("aws:ec2/securityGroup:SecurityGroup")
    assert not {"ingress", "egress"} & group.keys()
    ingress = declared.of(INGRESS)
    own = [(r["fromPort"], r["toPort"], r["cidrIpv4"]) for r in ingress if r["securityGroupId"] == "proxy-group-id"]
    assert sorted(own) == [(22, 22, "203.0.113.7/32"), (3080, 3080, "10.0.0.0/8")]
    clusters = [r for r in ingress if r["securityGroupId"] == "sg-cluster"]
    assert [(r["fromPort"], r["toPort"], r["referencedSecurityGroupId"]) for r in clusters] == [
        (443, 443, "proxy-group-id")
    ]


def test_a_proxy_in_another_vpc_leaves_the_clusters_group_alone() -> None:
    declared = record(
        lambda: ProxyNetwork("proxy", ProxyNetworkArgs("vpc-2", None, rules((), (), http_challenge=True)))
    )
    assert [rule["fromPort"] for rule in declared.of(INGRESS)] == [80]


def test_ec2_takes_every_description() -> None:
    everything = rules(("10.0.0.0/8",), ("203.0.113.7/32",), http_challenge=True)
    declared = record(lambda: ProxyNetwork("proxy", ProxyNetworkArgs("vpc-1", "sg-cluster", everything)))
    said = [
        thing["description"] for thing in [*declared.of("aws:ec2/securityGroup:SecurityGroup"), *declared.of(INGRESS)]
    ]
    assert len(said) == 1 + 4 + 3 + 1 + 1
    assert [text for text in said if not re.fullmatch(EC2_TEXT["pattern"], text)] == []


# address


def test_the_name_is_made_of_the_address() -> None:
    assert dynamic_hostname("203.0.113.10", "nip.io") == "ec2-203-0-113-10.nip.io"
    assert callback_url("a.b") == "https://a.b:3080/v1/webapi/github/callback"


def test_a_domain_gets_a_record_and_without_one_there_is_none() -> None:
    named = settings(domainName="teleport.example.com", hostedZone="example.com")
    own = record(lambda: ProxyAddress("proxy", ProxyAddressArgs(named, "Z1")))
    record_set = own.only("aws:route53/record:Record")
    assert (record_set["name"], record_set["records"]) == ("teleport.example.com", ["203.0.113.10"])
    dynamic = record(lambda: ProxyAddress("proxy", ProxyAddressArgs(settings(), None)))
    assert dynamic.only("aws:ec2/eip:Eip")["domain"] == "vpc"
    assert not dynamic.has("aws:route53/record:Record")


# host and storage


def host(**config: str) -> ProxyHostArgs:
    return ProxyHostArgs(
        settings=settings(instanceType="t4g.small", teleportVersion="18.10.1", **config),
        subnet_id="subnet-2",
        security_group_id="sg-1",
        instance_profile="profile",
        allocation_id="eipalloc-1",
        volume_id="vol-1",
        user_data="Zm9v",
        hostname="a.nip.io",
        revision="0a1b2c",
        region="eu-west-1",
        credentials=Credentials("ops", ROLE),
    )


def test_a_new_instance_is_waited_for_unless_that_is_turned_off() -> None:
    command = record(lambda: ProxyHost("proxy", host(waitMinutes="15"))).only("command:local:Command")
    assert command["create"].startswith(".venv/bin/python -m components.ready --hostname a.nip.io --instance-id ")
    options = "--region eu-west-1 --minutes 15 --version 18.10.1 --revision 0a1b2c"
    options += f" --profile ops --role-arn {ROLE}"
    assert command["create"].endswith(f" proxy-arm64-id {options}")
    assert command["triggers"] == ["proxy-arm64-id", "0a1b2c"]
    assert not record(lambda: ProxyHost("proxy", host(waitMinutes="0"))).has("command:local:Command")


def test_the_host_takes_no_token_less_metadata_and_is_encrypted() -> None:
    declared = record(lambda: ProxyHost("proxy", host(waitMinutes="0")))
    instance = declared.only("aws:ec2/instance:Instance")
    assert instance["metadataOptions"] == {
        "httpEndpoint": "enabled",
        "httpTokens": "required",
        "httpPutResponseHopLimit": 1,
    }
    assert instance["rootBlockDevice"]["encrypted"] is True
    assert instance["userDataReplaceOnChange"] is True
    assert "keyName" not in instance
    assert declared.only("aws:ec2/volumeAttachment:VolumeAttachment")["volumeId"] == "vol-1"
    assert declared.only("aws:ec2/eipAssociation:EipAssociation")["allocationId"] == "eipalloc-1"


def test_another_volume_means_another_instance_in_place_or_not() -> None:
    # The provider stops an instance to detach its volume, and leaves it stopped.
    declared = record(lambda: ProxyHost("proxy", host(waitMinutes="0", hostUpdates="in-place")))
    assert declared.requests["proxy-arm64"].replacement_trigger.string_value == "vol-1"


def storage(snapshot_days: int) -> ProxyStorageArgs:
    config = settings(dataVolumeSize="30", dataSnapshotId="snap-00000001", snapshotDays=str(snapshot_days))
    return ProxyStorageArgs(config, "prod", "aws", "eu-west-1a")


def test_the_data_volume_is_encrypted_and_backed_up_each_day() -> None:
    declared = record(lambda: ProxyStorage("proxy", storage(14)))
    volume = declared.only("aws:ebs/volume:Volume")
    assert (volume["encrypted"], volume["size"], volume["availabilityZone"]) == (True, 30, "eu-west-1a")
    assert volume["snapshotId"] == "snap-00000001"
    policy = declared.only("aws:dlm/lifecyclePolicy:LifecyclePolicy")["policyDetails"]
    assert policy["targetTags"].items() <= volume["tags"].items()
    (schedule,) = policy["schedules"]
    assert schedule["createRule"]["interval"] == 24
    assert schedule["retainRule"]["interval"] == 14


def test_without_days_to_keep_there_are_no_snapshots() -> None:
    declared = record(lambda: ProxyStorage("proxy", storage(0)))
    assert declared.only("aws:ebs/volume:Volume")
    assert not declared.has("aws:dlm/lifecyclePolicy:LifecyclePolicy")
    assert not declared.has("aws:iam/role:Role")


# cluster access


def test_impersonation_is_scoped_to_the_teams() -> None:
    scoped = {r["resources"][0]: r.get("resourceNames") for r in impersonation_rules([PLATFORM], "shared")}
    assert scoped["groups"] == ["oncall", "platform", "system:authenticated"]
    assert scoped["users"] == [SHARED_USER]
    assert "serviceaccounts" not in scoped


def test_a_person_is_any_user_but_still_only_the_teams_groups() -> None:
    scoped = {r["resources"][0]: r.get("resourceNames") for r in impersonation_rules([PLATFORM], "person")}
    assert scoped["users"] is None
    assert scoped["groups"] == ["oncall", "platform", "system:authenticated"]


def test_anonymous_is_a_subject_only_when_asked_for() -> None:
    assert [subject["name"] for subject in impersonators("teleport-group", False)] == ["teleport-group"]
    assert [subject["name"] for subject in impersonators("teleport-group", True)] == [
        "teleport-group",
        "system:anonymous",
    ]


def test_an_entry_that_was_lost_is_a_change_in_a_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost_at(*maps: client.V1ConfigMap) -> str:
        found = client.V1ConfigMapList(items=list(maps), metadata=client.V1ListMeta(resource_version="7"))
        api = SimpleNamespace(list_namespaced_config_map=lambda *_, **__: found)
        monkeypatch.setattr(configmap, "connect", lambda _: api)
        return entry_lost_at("", Names())

    entry = Entry(ROLE, "teleport", ("teleport-group",))
    metadata = client.V1ObjectMeta(resource_version="5")
    assert lost_at() == "7"
    assert lost_at(client.V1ConfigMap(metadata=metadata)) == "5"
    assert lost_at(client.V1ConfigMap(metadata=metadata, data={"mapRoles": add("", entry)})) == ""

    def input_and_ignored(version: str) -> tuple[dict, list]:
        site = replace(SITE, entry_lost_at=version)
        declared = record(lambda: TeleportProxy("teleport", TeleportProxyArgs("dev", settings(), site)))
        name = "teleport-cluster-access-aws-auth"
        (command,) = (plain(r.inputs) for r in declared.resources if r.name == name)
        return command["environment"], list(declared.requests[name].ignoreChanges)

    assert input_and_ignored("5") == ({"ENTRY_LOST_AT": "5"}, [])
    assert input_and_ignored("") == ({"ENTRY_LOST_AT": ""}, ["environment"])


def test_a_cluster_that_does_not_answer_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []
    monkeypatch.setattr("pulumi.log.warn", lambda text, *_: warned.append(text))
    assert entry_lost_at("no kubeconfig", Names()) == ""
    assert [text.partition(":")[0] for text in warned] == ["Could not read aws-auth; skipped the drift check"]


# team access


def test_a_team_is_a_role_with_its_groups() -> None:
    document = role(PLATFORM, "dev", "shared", "12h")
    assert document["metadata"] == {"name": "kube-acme-platform", "labels": {"teleport-eks": "dev"}}
    allow, options = document["spec"]["allow"], document["spec"]["options"]
    assert allow["kubernetes_groups"] == ["platform", "oncall"]
    assert allow["kubernetes_users"] == [SHARED_USER]
    assert allow["logins"] == ["deploy"]
    assert "rules" not in allow
    assert options == {
        "max_session_ttl": "12h",
        "record_session": {"default": "strict"},
        "port_forwarding": False,
    }
    assert "kubernetes_users" not in role(PLATFORM, "dev", "person", "12h")["spec"]["allow"]


def test_an_auditor_may_see_recordings_and_the_audit_log_and_nothing_else() -> None:
    auditors = Team.model_validate({"organization": "acme", "team": "audit", "auditor": True})
    assert role(auditors, "dev", "shared", "12h")["spec"]["allow"] == {
        "rules": [{"resources": ["session", "event"], "verbs": ["list", "read"]}]
    }


def test_the_connector_maps_teams_to_roles_and_holds_no_secret() -> None:
    spec = connector([PLATFORM], "Iv1.1", "https://x/callback")["spec"]
    assert spec["teams_to_roles"] == [{"organization": "Acme", "team": "platform", "roles": ["kube-acme-platform"]}]
    assert "client_secret" not in spec


@pytest.mark.parametrize(
    ("github", "teams", "expected"),
    [
        (False, (), []),
        (False, (PLATFORM,), ["roles/kube-acme-platform"]),
        (True, (), ["github-client-secret"]),
        (True, (PLATFORM,), ["github-client-secret", "github-connector", "roles/kube-acme-platform"]),
    ],
)
def test_what_is_kept_in_ssm(github: bool, teams: tuple, expected: list) -> None:
    app = {"githubClientId": "Iv1.1", "githubClientSecret": "canary"} if github else {}
    configured = settings(**app).model_copy(update={"teams": teams})
    args = TeamAccessArgs(configured, "dev", "/teleport-eks/dev", "https://x/callback")
    declared = record(lambda: TeamAccess("proxy", args))
    parameter = "aws:ssm/parameter:Parameter"
    parameters = declared.of(parameter) if declared.has(parameter) else []
    assert sorted(p["name"].removeprefix("/teleport-eks/dev/") for p in parameters) == expected
    # Only ``value`` is a secret: what a role or the connector says is shown in a preview.
    assert {p["type"] for p in parameters if "insecureValue" in p} <= {"String"}
    assert [(p["type"], p["value"]) for p in parameters if "value" in p] == [("SecureString", "canary")] * github


# next steps


def test_without_an_app_the_next_steps_say_how_to_make_one() -> None:
    steps = next_steps(settings(), SITE, "dev", "a.nip.io", ROLE)
    assert "callback: https://a.nip.io:3080/v1/webapi/github/callback" in steps
    assert "pulumi config set -s dev --secret teleport-eks:githubClientSecret" in steps
    assert "Add a team to Pulumi.dev.yaml" in steps


def test_with_an_app_and_a_team_only_approval_and_login_are_left() -> None:
    done = settings(
        githubClientId="Iv1.1", githubClientSecret="x", teams=json.dumps([PLATFORM.model_dump(by_alias=True)])
    )
    steps = next_steps(done, SITE, "dev", "a.nip.io", ROLE)
    assert "OAuth app:" not in steps
    assert "https://github.com/organizations/Acme/settings/oauth_application_policy" in steps
    assert "tsh login --proxy=a.nip.io:3080" in steps


# the whole


def inputs(**config: str) -> dict[str, dict]:
    """The inputs of every resource of a proxy, by type and name, with addresses and ids that are always the same."""
    args = TeleportProxyArgs("dev", settings(**config), SITE)
    declared = record(lambda: TeleportProxy("teleport", args))
    return {f"{resource.typ} {resource.name}": plain(resource.inputs) for resource in declared.resources}


def changed(before: dict, after: dict) -> set[str]:
    return {name.rpartition(" ")[2] for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_the_oauth_app_changes_parameters_and_never_the_instance() -> None:
    teams = json.dumps([PLATFORM.model_dump(by_alias=True)])
    without = inputs(teams=teams)
    app = inputs(teams=teams, githubClientId="Iv1.1", githubClientSecret="one")
    assert changed(without, app) == {"teleport-teams-github-client-secret", "teleport-teams-github-connector"}
    rotated = inputs(teams=teams, githubClientId="Iv1.1", githubClientSecret="two")
    assert changed(app, rotated) == {"teleport-teams-github-client-secret"}


def test_an_upgrade_replaces_the_instance_or_not_as_configured() -> None:
    instance = "aws:ec2/instance:Instance teleport-host-amd64"
    assert inputs()[instance]["userDataReplaceOnChange"] is True
    assert inputs(hostUpdates="in-place")[instance]["userDataReplaceOnChange"] is False
    before, after = inputs()[instance], inputs(teleportVersion="18.7.4")[instance]
    assert {key for key in before if before[key] != after[key]} == {"userDataBase64"}


def test_a_change_in_place_is_waited_for() -> None:
    ready = "command:local:Command teleport-host-ready"
    before, same = (inputs(hostUpdates="in-place", waitMinutes=minutes)[ready] for minutes in ("15", "20"))
    after = inputs(hostUpdates="in-place", acmeEmail="other@example.com")[ready]
    assert before["triggers"] == same["triggers"]
    assert before["triggers"] != after["triggers"]
    assert before["triggers"][1] in before["create"]


def test_another_way_to_the_cluster_leaves_its_objects_alone() -> None:
    provider = "pulumi:providers:kubernetes teleport-cluster"
    tunnels = [inputs(kubeconfig=f"kind: Config\nclusters: [localhost:{port}]")[provider] for port in (8443, 9443)]
    assert tunnels[0]["kubeconfig"] != tunnels[1]["kubeconfig"]
    # The real provider replaces itself, and all objects with it, only when this changes.
    assert [tunnel["clusterIdentifier"] for tunnel in tunnels] == [ARN, ARN]
    assert inputs(applyToCluster="false")[provider]["clusterIdentifier"] != ARN


def test_a_stack_whose_cluster_is_gone_can_be_destroyed() -> None:
    declared = inputs()
    assert declared["pulumi:providers:kubernetes teleport-cluster"]["deleteUnreachable"] == "true"
    assert declared["command:local:Command teleport-cluster-access-aws-auth"]["delete"].endswith(" --unreachable-ok")


def test_the_host_and_the_wait_for_it_come_after_the_name_is_there() -> None:
    def build() -> None:
        configured = settings(domainName="teleport.example.com", hostedZone="example.com")
        TeleportProxy("teleport", TeleportProxyArgs("dev", configured, SITE))

    # The parts of a component are registered when the component is, and that waits for this.
    host_needs = record(build).requests["teleport-host"].dependencies
    assert "teleport-address-record" in {urn.rpartition("::")[2] for urn in host_needs}


def test_a_new_team_changes_what_it_is_granted_and_never_the_instance() -> None:
    app = {"githubClientId": "Iv1.1", "githubClientSecret": "x"}
    one = PLATFORM.model_dump(by_alias=True)
    two = {**one, "team": "web", "kubernetesGroups": ["web"], "clusterRole": "edit"}
    assert changed(inputs(**app, teams=json.dumps([one])), inputs(**app, teams=json.dumps([one, two]))) == {
        "teleport-teams-roles-kube-acme-web",
        "teleport-teams-github-connector",
        "teleport-cluster-access-impersonation",
        "teleport-cluster-access-acme-web",
    }


def test_what_is_opted_into_is_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []
    monkeypatch.setattr("pulumi.log.warn", lambda text, *_: warned.append(text))
    inputs(allowAnonymousImpersonation="true")
    assert [text.partition(":")[0] for text in warned] == ["allowAnonymousImpersonation"]
    inputs()
    assert len(warned) == 1


def test_a_cluster_out_of_reach_gets_files_and_the_commands_to_apply_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "somebody's")
    declared = inputs(applyToCluster="false")
    provider = declared["pulumi:providers:kubernetes teleport-cluster"]
    assert (provider["renderYamlToDirectory"], provider["kubeconfig"]) == ("cluster-objects/dev", "")
    assert not [name for name in declared if "aws-auth" in name]
    steps = next_steps(settings(applyToCluster="false"), SITE, "dev", "a.nip.io", ROLE)
    assert "kubectl apply --recursive -f cluster-objects/dev" in steps
    assert f"components.aws_auth add --kubeconfig KUBECONFIG-FILE --role-arn {ROLE}" in steps


# all components


def component_classes() -> dict[str, ast.ClassDef]:
    classes = {}
    for path in sorted((ROOT / "components").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and "ComponentResource" in {
                ast.unparse(b).split(".")[-1] for b in node.bases
            }:
                classes[node.name] = node
    return classes


def constructor(component: ast.ClassDef) -> ast.FunctionDef:
    return next(n for n in component.body if isinstance(n, ast.FunctionDef) and n.name == "__init__")


def test_the_type_tokens_never_change() -> None:
    tokens = {}
    for name, component in component_classes().items():
        first = constructor(component).body[0]
        assert isinstance(first, ast.Expr)
        assert isinstance(first.value, ast.Call)
        tokens[name] = ast.literal_eval(first.value.args[0])
    # Another token is another resource: it would replace everything below it.
    assert tokens == {
        "ClusterAccess": "teleport-eks:index:ClusterAccess",
        "ProxyAddress": "teleport-eks:index:ProxyAddress",
        "ProxyHost": "teleport-eks:index:ProxyHost",
        "ProxyIdentity": "teleport-eks:index:ProxyIdentity",
        "ProxyNetwork": "teleport-eks:index:ProxyNetwork",
        "ProxyStorage": "teleport-eks:index:ProxyStorage",
        "TeamAccess": "teleport-eks:index:TeamAccess",
        "TeleportProxy": "teleport-eks:index:TeleportProxy",
    }


def test_every_component_registers_its_outputs_once_and_last() -> None:
    components = component_classes()
    assert len(components) == 8
    for name, component in components.items():
        calls = [n for n in ast.walk(component) if isinstance(n, ast.Attribute) and n.attr == "register_outputs"]
        assert len(calls) == 1, name
        assert ast.unparse(constructor(component).body[-1]).startswith("self.register_outputs("), name

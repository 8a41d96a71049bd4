"""``topology: ha``: what several hosts have instead of one address and one volume. tests/e2e/test_ha.py has a stack."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from policy.checks import RULES, Resource
from teleport_eks.cluster import choose_site, endpoint_warning
from teleport_eks.errors import ConfigurationError
from teleport_eks.host_group import NODES
from teleport_eks.identity import permissions
from teleport_eks.proxy import TeleportProxy, TeleportProxyArgs
from teleport_eks.settings import Settings
from teleport_eks.subnets import RouteTable
from tests.examples import CLUSTER, PARAMETERS, PUBLIC, SITE, settings
from tests.recorder import Recorder, plain, record

NAMED = {"domainName": "teleport.example.com", "hostedZone": "example.com"}
OTHER = replace(PUBLIC, id="subnet-3", cidr="10.0.3.0/24", availability_zone="eu-west-1c")
TABLE = "arn:aws:dynamodb:eu-west-1:111122223333:table/state"
EVENTS = "arn:aws:dynamodb:eu-west-1:111122223333:table/events"
TOPIC = "arn:aws:sns:eu-west-1:111122223333:on-call"
KEY = "arn:aws:kms:eu-west-1:111122223333:key/01234567-89ab-cdef-0123-456789abcdef"


def ha(**config: str) -> Settings:
    return settings(topology="ha", **NAMED, **config)


def declare(**config: str) -> Recorder:
    site = replace(SITE, more_subnets=(OTHER,))
    found = {"aws:ec2/getInstances:getInstances": {"ids": ["i-2", "i-1"]}}
    return record(lambda: TeleportProxy("teleport", TeleportProxyArgs("dev", ha(**config), site)), found)


def test_there_is_no_address_and_no_volume_and_recordings_are_in_s3() -> None:
    declared = declare()
    kinds = {resource.typ.rpartition(":")[2] for resource in declared.resources}
    assert not {"Eip", "Volume", "Instance", "LifecyclePolicy", "EipAssociation"} & kinds
    assert {"Table", "LoadBalancer", "Group", "LaunchTemplate", "Bucket"} <= kinds
    assert "aliases" in declared.only("aws:route53/record:Record")


def test_hosts_are_replaced_one_after_the_other_and_never_three_at_once() -> None:
    group = declare().only("aws:autoscaling/group:Group")
    assert (group["minSize"], group["maxSize"], group["desiredCapacity"]) == (2, 2, 2)
    for percentages in (group["instanceMaintenancePolicy"], group["instanceRefresh"]["preferences"]):
        assert (percentages["minHealthyPercentage"], percentages["maxHealthyPercentage"]) == (50, 100)
    assert group["vpcZoneIdentifiers"] == ["subnet-2", "subnet-3"]


def test_pulumi_waits_for_all_hosts_and_again_if_there_are_new_ones() -> None:
    command = [c for c in declare(waitMinutes="10").of("command:local:Command") if "ready" in c["create"]]
    (wait,) = command
    assert "--group teleport-hosts --targets arn:" in wait["create"]
    assert "--minutes 20 " in wait["create"]
    assert len(wait["triggers"]) == 2
    assert not [c for c in declare(waitMinutes="0").of("command:local:Command") if "ready" in c["create"]]


def test_of_several_hosts_the_worst_one_counts_and_nothing_is_about_an_instance() -> None:
    declared = declare(alarmTopicArn=TOPIC).of("aws:cloudwatch/metricAlarm:MetricAlarm")
    alarms = {alarm["name"].rpartition("/")[2]: alarm for alarm in declared}
    assert sorted(alarms) == ["certificate", "disk", "hosts", "proxy", "silent", "units"]
    assert [alarm["alarmActions"] for alarm in alarms.values()] == [[TOPIC]] * 6
    assert [alarm["dimensions"] for alarm in alarms.values()] == [{"Stack": "dev"}] * 6
    worst = {name: alarms[name]["statistic"] for name in ("certificate", "disk", "units")}
    assert worst == {"certificate": "Minimum", "disk": "Maximum", "units": "Maximum"}
    # One host that answers each minute is not enough.
    assert 5 < alarms["hosts"]["threshold"] < NODES * alarms["hosts"]["period"] / 60
    assert alarms["hosts"]["statistic"] == "Sum"


@pytest.mark.parametrize(("mode", "ports"), [("separate", [3023, 3024, 3026, 3080]), ("multiplex", [443])])
def test_the_balancer_has_the_clients_ports_and_asks_the_web_page(mode: str, ports: list[int]) -> None:
    declared = declare(listenerMode=mode)
    assert sorted(listener["port"] for listener in declared.of("aws:lb/listener:Listener")) == ports
    checks = {group["healthCheck"]["port"] for group in declared.of("aws:lb/targetGroup:TargetGroup")}
    assert checks == {str(ports[-1])}


def test_the_firewall_admits_the_balancer_and_the_other_host() -> None:
    rules = declare(clientCidrs='["203.0.113.0/24"]').of("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule")
    asks = [(rule["fromPort"], rule["cidrIpv4"]) for rule in rules if rule["description"] == "load balancer"]
    assert asks == [(3080, "10.0.2.0/24"), (3080, "10.0.3.0/24")]
    own = [rule for rule in rules if rule.get("referencedSecurityGroupId") == rule["securityGroupId"]]
    assert [rule["fromPort"] for rule in own] == [3022, 3025]


@pytest.mark.parametrize("protect", ["true", "false"])
def test_tables_and_balancer_are_protected(protect: str) -> None:
    declared, wanted = declare(protect=protect), protect == "true"
    flags = [table["deletionProtectionEnabled"] for table in declared.of("aws:dynamodb/table:Table")]
    assert [*flags, declared.only("aws:lb/loadBalancer:LoadBalancer")["enableDeletionProtection"]] == [wanted] * 3
    names = ("teleport-state-state", "teleport-state-events", "teleport-balancer")
    assert [declared.requests[name].protect for name in names] == [wanted] * 3


def test_a_stack_keeps_the_policy_packs_rules() -> None:
    declared = declare(kmsKeyArn=KEY)
    found = [
        violation
        for resource in declared.resources
        for rule in RULES
        if not rule.whole_stack
        for violation in rule.violations(
            Resource(resource.typ, resource.name, plain(resource.inputs), declared.requests[resource.name].protect)
        )
    ]
    assert found == []
    assert declared.has("aws:ec2/launchTemplate:LaunchTemplate")


def statements(**more: str | None) -> dict[str, dict]:
    policy = permissions(CLUSTER.arn, PARAMETERS, **{"state_arn": TABLE, "events_arn": EVENTS, **more})
    return {statement["Sid"]: statement for statement in policy["Statement"]}


def test_a_host_may_add_to_the_audit_log_and_not_change_it() -> None:
    found = statements(kms_key_arn=KEY)
    assert found["Events"]["Resource"] == [EVENTS, f"{EVENTS}/index/timesearchV2"]
    writes = {a for a in found["Events"]["Action"] if not a.startswith(("dynamodb:Describe", "dynamodb:Query"))}
    assert writes == {"dynamodb:PutItem"}
    assert (found["State"]["Resource"], found["StateStream"]["Resource"]) == (TABLE, f"{TABLE}/stream/*")
    assert not [a for s in found.values() for a in s["Action"] if "CreateTable" in a or "UpdateTable" in a]
    assert found["StateKey"]["Condition"] == {"StringLike": {"kms:ViaService": "dynamodb.eu-west-1.amazonaws.com*"}}


def test_the_hosts_are_in_two_zones() -> None:
    def choose(*subnets: object) -> Callable:
        table = RouteTable((), True, "igw-1")
        return lambda: choose_site(ha(), "dev", [CLUSTER], subnets, [table], [])  # pyright: ignore[reportArgumentType]

    same = replace(OTHER, id="subnet-4", availability_zone=PUBLIC.availability_zone)
    site = choose(PUBLIC, same, OTHER)()
    assert [site.subnet.id, *(subnet.id for subnet in site.more_subnets)] == ["subnet-2", "subnet-3"]
    with pytest.raises(ConfigurationError, match="all public subnets of vpc-1 are in eu-west-1b: add one in another"):
        choose(PUBLIC, same)()


def test_a_narrow_public_endpoint_cannot_admit_hosts_whose_addresses_change() -> None:
    away = replace(SITE, subnet=replace(PUBLIC, vpc_id="vpc-2"))
    narrow = replace(CLUSTER, public_access_cidrs=("198.51.100.0/24",))
    assert "the hosts' addresses change, so enable its private endpoint" in endpoint_warning(away, narrow, "")
    assert endpoint_warning(away, CLUSTER, "") == ""

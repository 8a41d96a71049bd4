"""Who can reach which port. tests/e2e/test_stack.py has the rules of a whole stack, as the account holds them."""

import re

from sandbox.strict_account import EC2_TEXT
from teleport_eks.network import ProxyNetwork, ProxyNetworkArgs, rules
from tests.examples import INGRESS
from tests.recorder import record


def test_each_audience_reaches_its_own_ports() -> None:
    allowed = rules(("10.0.0.0/8", "192.0.2.0/24"), ("203.0.113.7/32",), http_challenge=False)
    assert {rule.port for rule in allowed if rule.cidr == "203.0.113.7/32"} == {22, 3022, 3025}
    assert {rule.port for rule in allowed if rule.cidr == "192.0.2.0/24"} == {3023, 3024, 3026, 3080}
    assert len(allowed) == 3 + 2 * 4


def test_each_rule_is_a_resource_that_ec2_accepts() -> None:
    everything = rules(("10.0.0.0/8",), ("203.0.113.7/32",), http_challenge=True)
    declared = record(
        lambda: ProxyNetwork("proxy", ProxyNetworkArgs("vpc-1", {"": "sg-1", "-tools": "sg-2"}, everything))
    )
    group, ingress = declared.only("aws:ec2/securityGroup:SecurityGroup"), declared.of(INGRESS)
    assert not {"ingress", "egress"} & group.keys(), "inline rules would delete those of others"
    assert len(ingress) == 4 + 3 + 1 + 2
    assert [rule["securityGroupId"] for rule in ingress if "referencedSecurityGroupId" in rule] == ["sg-1", "sg-2"]
    assert all(rule["fromPort"] == rule["toPort"] for rule in ingress)
    descriptions = [thing["description"] for thing in [group, *ingress]]
    assert [text for text in descriptions if not re.fullmatch(EC2_TEXT["pattern"], text)] == []


def test_a_proxy_in_another_vpc_adds_no_rule_to_the_clusters_group() -> None:
    args = ProxyNetworkArgs("vpc-2", {}, rules((), (), http_challenge=True))
    declared = record(lambda: ProxyNetwork("proxy", args))
    assert [rule["fromPort"] for rule in declared.of(INGRESS)] == [80]

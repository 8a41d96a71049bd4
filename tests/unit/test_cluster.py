"""What the program makes of the cluster that it looks up."""

import threading
from dataclasses import replace
from typing import Any

import grpc
import pulumi
import pytest

from teleport_eks.cluster import access_mode, choose_site, endpoint_warning, kubeconfig, look_up
from teleport_eks.credentials import Credentials
from teleport_eks.errors import ConfigurationError
from teleport_eks.proxy import TeleportProxy, TeleportProxyArgs
from tests.examples import CLUSTER, PUBLIC, SITE, settings
from tests.recorder import Recorder, record


class Account(Recorder):
    """Answers look-ups. Those of a round are answered when all of the round have been asked."""

    rounds = (
        ["eks/getCluster", "ebs/getEbsVolumes"],
        ["ec2/getSubnets", "ec2/getRouteTables", "ebs/getVolume"],
        ["ec2/getSubnet", "ec2/getSubnet", "ec2/getRouteTable"],
    )

    def __init__(self) -> None:
        super().__init__({})
        self.asked: list[str] = []
        self.complete = [threading.Barrier(len(names), timeout=10) for names in self.rounds]

    def call(self, args: pulumi.runtime.MockCallArgs) -> Any:
        name = args.token.removeprefix("aws:").partition(":")[0]
        self.asked.append(name)
        if name == "ssm/getParameter":  # the image's id, which nothing else waits for
            return super().call(args)
        (number,) = (n for n, names in enumerate(self.rounds) if name in names)
        self.complete[number].wait()
        found: dict[str, dict[str, Any]] = {
            "eks/getCluster": {
                "arn": CLUSTER.arn,
                "endpoint": CLUSTER.endpoint,
                "certificateAuthorities": [{"data": "Q0E="}],
                "accessConfigs": [{"authenticationMode": "API"}],
                "vpcConfig": {
                    "vpcId": "vpc-1",
                    "clusterSecurityGroupId": "sg-1",
                    "endpointPublicAccess": True,
                    "endpointPrivateAccess": True,
                    "publicAccessCidrs": [],
                },
            },
            "ebs/getEbsVolumes": {"ids": ["vol-1"]},
            "ec2/getSubnets": {"ids": ["subnet-1", "subnet-2"]},
            "ec2/getRouteTables": {"ids": ["rtb-1"]},
            "ebs/getVolume": {"volumeId": "vol-1", "availabilityZone": "b", "snapshotId": "", "kmsKeyId": ""},
            "ec2/getSubnet": {"vpcId": "vpc-1", "cidrBlock": "10.0.0.0/24", "availabilityZone": "b", "tags": {}},
            "ec2/getRouteTable": {
                "routes": [{"cidrBlock": "0.0.0.0/0", "gatewayId": "igw-1"}],
                "associations": [{"main": True, "subnetId": ""}],
            },
        }
        return {**args.args, **found[name]}


def test_a_preview_looks_each_thing_up_once_and_waits_for_three_round_trips() -> None:
    account = Account()
    record(
        lambda: TeleportProxy("teleport", TeleportProxyArgs("dev", settings(), look_up(settings(), "dev"))),
        recorder=account,
    )
    assert account.only("aws:ec2/instance:Instance")["subnetId"] == "subnet-1"
    assert sorted(account.asked) == sorted(["ssm/getParameter", *(name for names in account.rounds for name in names)])


def test_a_missing_cluster_is_an_error_that_lists_the_others() -> None:
    """As the real provider words it; tests/e2e/test_refusals.py has the stand-in's words."""

    class Refused(grpc.RpcError):
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.UNKNOWN

        def details(self) -> str:
            return (
                "invocation of aws:eks/getCluster:getCluster returned an error: invoking "
                "aws:eks/getCluster:getCluster: 1 error occurred:\n"
                "\t* reading EKS Cluster (demo): couldn't find resource\n"
            )

    class Missing(Recorder):
        def call(self, args: pulumi.runtime.MockCallArgs) -> Any:
            if "getCluster:" in args.token:
                raise Refused
            return {"names": ["staging"], "ids": []}

    with pytest.raises(ConfigurationError, match="no cluster has this name here; there are staging"):
        record(lambda: look_up(settings(), "dev"), recorder=Missing({}))


def test_what_is_wrong_with_an_additional_cluster_is_said_with_its_own_key() -> None:
    given = settings(
        subnetId="subnet-22222222", additionalClusters='[{"clusterName": "tools", "accessMode": "aws-auth"}]'
    )
    tools = replace(CLUSTER, name="tools", vpc_id="vpc-2", endpoint_public_access=False, authentication_mode="API")
    with pytest.raises(ConfigurationError) as refused:
        choose_site(given, "dev", [CLUSTER, tools], [PUBLIC], [], [])
    said = str(refused.value)
    assert "2 problems" in said
    assert "teleport-eks:additionalClusters[0].accessMode\n    value: aws-auth" in said
    assert (
        "teleport-eks:additionalClusters[0].clusterName\n    value: tools\n    rule:  its endpoint is private" in said
    )
    assert said.count("write: teleport-eks:") == 0, "the key in the list, and not one of the stack's own"


NARROW = {"public_access_cidrs": ("198.51.100.0/24",)}


@pytest.mark.parametrize(
    ("cluster", "vpc_id", "expected"),
    [
        ({}, "vpc-2", ""),
        (NARROW, "vpc-1", ""),  # the private endpoint is taken
        ({"public_access_cidrs": ("203.0.113.0/24",)}, "vpc-2", ""),
        (NARROW, "vpc-2", "add 203.0.113.10/32"),
        ({**NARROW, "endpoint_private_access": False}, "vpc-1", "add 203.0.113.10/32"),
    ],
)
def test_an_endpoint_that_does_not_admit_the_proxy_is_a_warning(cluster: dict, vpc_id: str, expected: str) -> None:
    warning = endpoint_warning(
        replace(SITE, subnet=replace(PUBLIC, vpc_id=vpc_id)), replace(CLUSTER, **cluster), "203.0.113.10"
    )
    assert expected in warning if expected else not warning


def test_auto_means_access_entries_if_the_cluster_has_them() -> None:
    modes = [access_mode("auto", mode) for mode in ("API", "API_AND_CONFIG_MAP", "CONFIG_MAP")]
    assert modes == ["access-entry", "access-entry", "aws-auth"]
    assert access_mode("aws-auth", "API_AND_CONFIG_MAP") == "aws-auth"


def test_the_kubeconfig_holds_no_secret_and_no_context_name_that_teleport_ignores() -> None:
    text = kubeconfig(CLUSTER, Credentials())
    assert "--profile" not in text
    assert "token" not in text.replace("get-token", "")
    assert "current-context: demo" in text

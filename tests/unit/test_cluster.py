"""What the program makes of the cluster that it looks up, and of where the proxy can be."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pulumi
import pulumi_aws as aws
import pytest
import yaml

from components.cluster import Cluster, Site, access_mode, choose_site, endpoint_warning, kubeconfig, look_up
from components.cluster_access import Names
from components.credentials import Credentials, credentials
from components.errors import ConfigurationError
from components.settings import Settings, parse
from components.subnets import LOAD_BALANCER_TAG, RouteTable, Subnet, Volume, public_subnets

CLUSTER = Cluster(
    name="demo",
    arn="arn:aws:eks:eu-west-1:111122223333:cluster/demo",
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
OTHER = Subnet("subnet-0", "vpc-1", "10.0.3.0/24", "eu-west-1c", {"Name": "c-public"})
PRIVATE = Subnet("subnet-1", "vpc-1", "10.0.1.0/24", "eu-west-1a", {"Name": "a-private", LOAD_BALANCER_TAG: "1"})
TABLES = [RouteTable((PRIVATE.id,), False, "nat-1"), RouteTable((), True, "igw-1")]


def settings(**config: str) -> Settings:
    return parse({"clusterName": "demo", "acmeEmail": "platform@example.com", **config}, "dev")


def test_a_cluster_that_is_not_there_is_said_in_the_providers_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise Exception(
            "invoke of aws:eks/getCluster:getCluster failed: invocation of aws:eks/getCluster:getCluster returned an "
            "error: invoking aws:eks/getCluster:getCluster: 1 error occurred:\n"
            "\t* reading EKS Cluster (demo): couldn't find resource\n"
        )

    monkeypatch.setattr(aws.eks, "get_cluster", refuse)
    monkeypatch.setattr(aws.eks, "get_clusters", lambda **_: aws.eks.GetClustersResult(names=["staging"]))
    with pytest.raises(ConfigurationError, match="no cluster has this name here; there are staging"):
        look_up(settings(), "dev")


def chosen(config: dict, subnets: Sequence[Subnet], volumes: Sequence[Volume] = (), cluster: Cluster = CLUSTER) -> Site:
    return choose_site(settings(**config), "dev", cluster, subnets, TABLES, volumes)


def test_a_public_subnet_is_one_with_a_route_to_an_internet_gateway() -> None:
    by_main = Subnet("subnet-4", "vpc-1", "10.0.4.0/24", "eu-west-1a", {LOAD_BALANCER_TAG: "1"})
    tables = [RouteTable((PRIVATE.id,), False, "nat-1"), RouteTable((), True, "igw-1")]
    assert public_subnets([PRIVATE, PUBLIC, by_main], tables) == [by_main, PUBLIC], "the tag only ranks"
    assert not public_subnets([by_main], [RouteTable((), True, "")])
    assert not public_subnets([by_main], [RouteTable((), False, "igw-1")])


def test_the_first_public_subnet_by_name_is_chosen() -> None:
    assert chosen({}, [OTHER, PRIVATE, PUBLIC]).subnet is PUBLIC


def test_the_proxy_stays_in_the_zone_of_its_volume() -> None:
    volume = Volume("vol-1", OTHER.availability_zone, "")
    assert chosen({}, [PUBLIC, OTHER], [volume]).subnet is OTHER


@pytest.mark.parametrize("config", [{}, {"subnetId": "subnet-22222222"}])
def test_a_volume_that_exists_is_not_moved(config: dict) -> None:
    elsewhere = replace(PUBLIC, id="subnet-22222222", availability_zone="eu-west-1c")
    with pytest.raises(ConfigurationError) as refused:
        chosen(config, [elsewhere], [Volume("vol-1", "eu-west-1a", "")])
    assert "vol-1, is in eu-west-1a and cannot leave it" in str(refused.value)
    assert "teleport-eks:subnetId: subnet-0123456789abcdef0   # a public subnet in eu-west-1a" in str(refused.value)


def test_a_volume_that_is_restored_from_another_snapshot_may_be_in_another_zone() -> None:
    made_of = Volume("vol-1", "eu-west-1a", "snap-00000001")
    assert chosen({"dataSnapshotId": "snap-00000002"}, [PUBLIC], [made_of]).subnet is PUBLIC
    with pytest.raises(ConfigurationError):
        chosen({"dataSnapshotId": "snap-00000001"}, [PUBLIC], [made_of])


def test_a_subnet_that_is_named_is_taken_as_it_is() -> None:
    assert chosen({"subnetId": "subnet-11111111"}, [named("vpc-2")]).subnet.vpc_id == "vpc-2"


def named(vpc_id: str) -> Subnet:
    return Subnet("subnet-11111111", vpc_id, "10.1.0.0/24", "eu-west-1a", {})


@pytest.mark.parametrize(
    ("config", "change", "subnets", "texts"),
    [
        (
            {},
            {},
            [PRIVATE],
            ["teleport-eks:subnetId", "subnet-1 a-private 10.0.1.0/24", "write: teleport-eks:subnetId:"],
        ),
        ({}, {}, [], ["no subnet at all"]),
        (
            {"subnetId": "subnet-11111111"},
            {"endpoint_public_access": False},
            [named("vpc-2")],
            ["is in vpc-2", "private", "answers only in vpc-1"],
        ),
        (
            {"accessMode": "access-entry"},
            {"authentication_mode": "CONFIG_MAP"},
            [PUBLIC],
            ["teleport-eks:accessMode", "authentication mode CONFIG_MAP"],
        ),
        (
            {"accessMode": "aws-auth"},
            {"authentication_mode": "API"},
            [PRIVATE],
            ["2 problems", "teleport-eks:accessMode", "teleport-eks:subnetId"],
        ),
    ],
)
def test_what_the_cluster_cannot_do_is_refused(config: dict, change: dict, subnets: list, texts: list) -> None:
    with pytest.raises(ConfigurationError) as refused:
        chosen(config, subnets, cluster=replace(CLUSTER, **change))
    for text in texts:
        assert text in str(refused.value)


@pytest.mark.parametrize(
    ("change", "vpc_id", "public_ip", "expected"),
    [
        ({}, "vpc-2", "203.0.113.10", ""),
        ({"public_access_cidrs": ("198.51.100.0/24",)}, "vpc-1", "203.0.113.10", ""),  # the private endpoint is taken
        ({"public_access_cidrs": ("203.0.113.0/24",)}, "vpc-2", "203.0.113.10", ""),
        ({"public_access_cidrs": ("198.51.100.0/24",)}, "vpc-2", "203.0.113.10", "add 203.0.113.10/32"),
        (
            {"public_access_cidrs": ("198.51.100.0/24",), "endpoint_private_access": False},
            "vpc-1",
            "203.0.113.10",
            "add 203.0.113.10/32",
        ),
    ],
)
def test_an_endpoint_that_does_not_admit_the_proxy_is_warned_about(
    change: dict, vpc_id: str, public_ip: str, expected: str
) -> None:
    site = Site(replace(CLUSTER, **change), replace(PUBLIC, vpc_id=vpc_id), "access-entry", Names())
    warning = endpoint_warning(site, public_ip)
    assert expected in warning if expected else not warning


def test_access_entries_come_first_where_the_cluster_has_them() -> None:
    modes = [access_mode("auto", mode) for mode in ("API", "API_AND_CONFIG_MAP", "CONFIG_MAP")]
    assert modes == ["access-entry", "access-entry", "aws-auth"]
    assert access_mode("aws-auth", "API_AND_CONFIG_MAP") == "aws-auth"


def test_the_kubeconfig_holds_no_secret_and_no_context_name_that_teleport_ignores() -> None:
    text = kubeconfig(CLUSTER, Credentials())
    assert "--profile" not in text
    assert "token" not in text.replace("get-token", "")
    assert "current-context: demo" in text


ROLE = "arn:aws:iam::111122223333:role/deploy"


def test_the_stacks_profile_and_role_sign_in_to_the_cluster_too() -> None:
    found, problems = credentials({"profile": "ops", "assumeRoles": json.dumps([{"roleArn": ROLE}]), "region": "x"})
    assert (found, problems) == (Credentials("ops", ROLE), [])
    user = yaml.safe_load(kubeconfig(CLUSTER, found))["users"][0]["user"]["exec"]
    assert " ".join(user["args"]) == (
        f"--region eu-west-1 --profile ops eks get-token --cluster-name demo --output json --role-arn {ROLE}"
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"assumeRoles": [{"roleArn": ROLE}, {"roleArn": ROLE}]}, "has more than one role"),
        ({"assumeRoles": [{"roleArn": ROLE, "externalId": "x"}]}, "has externalId"),
        ({"accessKey": "AKIA", "secretKey": "canary"}, "works in the AWS provider only"),
    ],
)
def test_credentials_that_only_the_provider_can_use_are_refused(config: dict, expected: str) -> None:
    given = {f"aws:{key}": value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}
    pulumi.runtime.set_all_config(given)
    try:
        with pytest.raises(ConfigurationError, match=expected) as refused:
            look_up(settings(), "dev")
    finally:
        pulumi.runtime.set_all_config({})
    assert "write: aws:profile: NAME" in str(refused.value)
    assert "canary" not in str(refused.value)

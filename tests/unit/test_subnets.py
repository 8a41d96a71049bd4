"""Which subnets are public, and in which one the proxy is."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from teleport_eks.cluster import Site, choose_site
from teleport_eks.errors import ConfigurationError
from teleport_eks.subnets import LOAD_BALANCER_TAG, RouteTable, Subnet, Volume, public_subnets
from tests.examples import CLUSTER, PUBLIC, settings

OTHER = Subnet("subnet-0", "vpc-1", "10.0.3.0/24", "eu-west-1c", {"Name": "c-public"})
PRIVATE = Subnet("subnet-1", "vpc-1", "10.0.1.0/24", "eu-west-1a", {"Name": "a-private", LOAD_BALANCER_TAG: "1"})
ELSEWHERE = Subnet("subnet-11111111", "vpc-2", "10.1.0.0/24", "eu-west-1c", {})
TABLES = [RouteTable((PRIVATE.id,), False, "nat-1"), RouteTable((), True, "igw-1")]


def choose(config: dict, subnets: Sequence[Subnet], volumes: Sequence[Volume] = (), **cluster: object) -> Site:
    return choose_site(settings(**config), "dev", [replace(CLUSTER, **cluster)], subnets, TABLES, volumes)


def test_a_public_subnet_has_a_route_to_an_internet_gateway() -> None:
    by_main = Subnet("subnet-4", "vpc-1", "10.0.4.0/24", "eu-west-1a", {LOAD_BALANCER_TAG: "1"})
    assert public_subnets([PRIVATE, PUBLIC, by_main], TABLES) == [by_main, PUBLIC], "the tag only ranks"
    assert not public_subnets([by_main], [RouteTable((), True, "")])
    assert not public_subnets([by_main], [RouteTable((), False, "igw-1")])


@pytest.mark.parametrize(
    ("config", "subnets", "volumes", "chosen"),
    [
        ({}, [OTHER, PRIVATE, PUBLIC], [], PUBLIC),  # the first by name
        ({}, [PUBLIC, OTHER], [Volume("vol-1", OTHER.availability_zone, "")], OTHER),  # with its volume
        ({"subnetId": ELSEWHERE.id}, [ELSEWHERE], [], ELSEWHERE),
        # A volume that is restored from another snapshot may be in another zone.
        ({"dataSnapshotId": "snap-00000002"}, [PUBLIC], [Volume("vol-1", "eu-west-1a", "snap-00000001")], PUBLIC),
    ],
)
def test_the_subnet_follows_the_name_the_volume_and_the_setting(
    config: dict, subnets: list, volumes: list, chosen: Subnet
) -> None:
    assert choose(config, subnets, volumes).subnet is chosen


@pytest.mark.parametrize("config", [{}, {"subnetId": ELSEWHERE.id}, {"dataSnapshotId": "snap-00000001"}])
def test_an_existing_volume_is_not_moved(config: dict) -> None:
    subnet = ELSEWHERE if "subnetId" in config else PUBLIC
    with pytest.raises(ConfigurationError) as refused:
        choose(config, [subnet], [Volume("vol-1", "eu-west-1a", config.get("dataSnapshotId", ""))])
    assert "vol-1, is in eu-west-1a and cannot leave it" in str(refused.value)
    assert "teleport-eks:subnetId: subnet-0123456789abcdef0   # a public subnet in eu-west-1a" in str(refused.value)


@pytest.mark.parametrize(
    ("config", "cluster", "subnets", "texts"),
    [
        (
            {},
            {},
            [PRIVATE],
            ["teleport-eks:subnetId", "subnet-1 a-private 10.0.1.0/24", "write: teleport-eks:subnetId:"],
        ),
        ({}, {}, [], ["no subnet at all"]),
        (
            {"subnetId": ELSEWHERE.id},
            {"endpoint_public_access": False},
            [ELSEWHERE],
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
def test_what_the_cluster_cannot_do_is_refused(config: dict, cluster: dict, subnets: list, texts: list) -> None:
    with pytest.raises(ConfigurationError) as refused:
        choose(config, subnets, **cluster)
    assert [text for text in texts if text not in str(refused.value)] == []

"""Who may do what, by the teams that they are in."""

import json

import pytest

from tests.teleport.people import Person
from tests.teleport.stage import Site

KUBECTL = "kubectl"


def groups(person: Person) -> set[str]:
    """The person's groups in the cluster. Teleport gives them in any order."""
    return set(json.loads(person.can(KUBECTL, "auth", "whoami", "-o", "json"))["status"]["userInfo"]["groups"])


def test_a_member_of_one_team(stack: Site) -> None:
    ada = stack.person("ada", ("acme", "dev"), ("other", "ops"))  # a team of another organization does not count
    ada.sign_in()
    assert "teleport-user" in ada.can(KUBECTL, "auth", "whoami")
    assert groups(ada) == {"dev", "system:authenticated"}
    assert "web" in ada.can(KUBECTL, "get", "pods", "-n", "shop")
    assert "forbidden" in ada.cannot(KUBECTL, "get", "pods", "-n", "bank")
    assert "forbidden" in ada.cannot(KUBECTL, "get", "nodes")


def test_a_member_of_two_teams_has_both(stack: Site) -> None:
    ben = stack.person("ben", ("acme", "dev"), ("acme", "ops"))
    ben.sign_in()
    assert groups(ben) == {"dev", "ops", "system:authenticated"}
    ben.can(KUBECTL, "get", "pods", "-n", "bank")
    assert "forbidden" in ben.cannot(KUBECTL, "create", "configmap", "one", "-n", "bank")
    ben.can(KUBECTL, "create", "configmap", "one", "-n", "shop")
    ben.can(KUBECTL, "delete", "configmap", "one", "-n", "shop")


def test_a_member_of_no_team_is_not_let_in(stack: Site) -> None:
    eve = stack.person("eve", ("acme", "interns"))
    assert "teams" in eve.is_refused()
    eve.cannot("tsh", "status")


@pytest.mark.parametrize(
    "who", [("--as=teleport-user", "--as-group=ops"), ("--as=admin", "--as-group=system:masters"), ("--as=admin",)]
)
def test_nobody_may_be_somebody_else(stack: Site, who: tuple[str, ...]) -> None:
    kim = stack.person("kim", ("acme", "dev"))
    kim.sign_in()
    kim.can(KUBECTL, "get", "pods", "-n", "shop")
    assert "impersonat" in kim.cannot(KUBECTL, "get", "pods", "-n", "shop", *who)

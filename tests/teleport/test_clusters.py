"""docs/clusters.md: several clusters behind one proxy, with the same teams or with teams of their own."""

import json
from collections.abc import Iterator

import pytest

from tests.teleport.people import Person
from tests.teleport.stage import Site, team
from tests.waiting import wait_for

TOOLS = {"clusterName": "tools"}
VIEWERS = {**TOOLS, "teams": [team("ops", kubernetesGroups=["toolsmiths"], clusterRole="view")]}
NAMESPACES = "kubectl", "get", "namespaces", "-o", "name"


def up(site: Site, *additional: dict) -> None:
    site.up(additionalClusters=json.dumps(additional))


@pytest.fixture(scope="module", autouse=True)
def tools(site: Site) -> Iterator[None]:
    site.additional["tools"] = plane = site.start_control_plane("tools")
    for name in ("shop", "only-in-tools"):  # teams of the stack have a role in shop
        site.admin("create", "namespace", name, cluster="tools")
    yield
    site.up()
    del site.additional["tools"]
    plane.stop()


def clusters(person: Person) -> list[str]:
    listed = json.loads(person.can("tsh", "kube", "ls", "--format=json"))
    return sorted(item["kube_cluster_name"] for item in listed)


def groups(person: Person, cluster: str) -> set[str]:
    person.can("tsh", "kube", "login", cluster)
    who = json.loads(person.can("kubectl", "auth", "whoami", "--output=json"))
    return set(who["status"]["userInfo"]["groups"]) - {"system:authenticated"}


def test_a_cluster_with_the_same_teams_comes_and_goes(site: Site) -> None:
    up(site)
    omar = site.person("omar", ("acme", "ops"))
    omar.sign_in()
    instance = site.pid()
    assert clusters(omar) == ["demo"]

    up(site, TOOLS)
    wait_for(lambda: clusters(omar) == ["demo", "tools"], "nobody who was signed in sees the new cluster")
    assert groups(omar, "tools") == groups(omar, "demo") == {"ops"}
    omar.can("tsh", "kube", "login", "tools")
    assert "only-in-tools" in omar.can(*NAMESPACES)
    assert site.access().console == "", "nothing is done again each minute"

    up(site)
    wait_for(lambda: clusters(omar) == ["demo"], "the cluster is still there")
    omar.cannot(*NAMESPACES)
    assert "teleport" not in site.admin("get", "clusterrolebindings", "-o", "name", cluster="tools")
    omar.can("tsh", "kube", "login", "demo")
    assert "only-in-tools" not in omar.can(*NAMESPACES)
    assert site.pid() == instance, "Teleport was restarted"


def test_a_cluster_with_teams_of_its_own(site: Site) -> None:
    up(site, VIEWERS)
    olga, dora = site.person("olga", ("acme", "ops")), site.person("dora", ("acme", "dev"))
    for person in (olga, dora):
        person.sign_in()
    wait_for(lambda: clusters(olga) == ["demo", "tools"], "the cluster is not there")
    assert clusters(dora) == ["demo"]
    assert groups(olga, "tools") == {"toolsmiths"}
    assert groups(olga, "demo") == {"ops"}
    olga.can("tsh", "kube", "login", "tools")
    olga.cannot(*NAMESPACES, "--as=teleport-user", "--as-group=ops")
    assert "forbidden" in olga.cannot("kubectl", "get", "secrets", "-n", "default")

    # With the list gone, the stack's teams count.
    up(site, TOOLS)
    wait_for(lambda: dora.sign_in() and clusters(dora) == ["demo", "tools"], "the stack's teams do not count")
    assert groups(dora, "tools") == {"dev"}
    wait_for(lambda: olga.run(*NAMESPACES).returncode, "she keeps the access that the cluster's own list gave her")

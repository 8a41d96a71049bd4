"""The whole: what a changed setting changes, and what all components have in common."""

import ast
import json

import pytest

from sandbox.engine import ROOT
from teleport_eks.cluster import Site
from tests.examples import CLUSTER, PLATFORM, SITE, TOOLS, record_proxy, site
from tests.recorder import plain

INSTANCE = "aws:ec2/instance:Instance teleport-host-amd64"
PROVIDER = "pulumi:providers:kubernetes teleport-cluster"


def inputs(**config: str) -> dict[str, dict]:
    """The inputs of every resource, by type and name. Addresses and ids are always the same."""
    return {f"{resource.typ} {resource.name}": plain(resource.inputs) for resource in record_proxy(config).resources}


def changed(before: dict, after: dict) -> set[str]:
    return {name.rpartition(" ")[2] for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_apps_and_teams_change_parameters_and_bindings_and_never_the_instance() -> None:
    one = PLATFORM.model_dump(by_alias=True)
    two = {**one, "team": "web", "kubernetesGroups": ["web"], "clusterRole": "edit"}
    without = inputs(teams=json.dumps([one]))
    app = inputs(teams=json.dumps([one]), githubClientId="Iv1.1", githubClientSecret="one")
    rotated = inputs(teams=json.dumps([one]), githubClientId="Iv1.1", githubClientSecret="two")
    more = inputs(teams=json.dumps([one, two]), githubClientId="Iv1.1", githubClientSecret="two")
    assert changed(without, app) == {"teleport-teams-github-client-secret", "teleport-teams-github-connector"}
    assert changed(app, rotated) == {"teleport-teams-github-client-secret"}
    assert changed(rotated, more) == {
        "teleport-teams-roles-kube-acme-web",
        "teleport-teams-github-connector",
        "teleport-cluster-access-impersonation",
        "teleport-cluster-access-acme-web",
    }


def test_an_upgrade_replaces_the_instance_unless_updates_are_in_place() -> None:
    assert inputs()[INSTANCE]["userDataReplaceOnChange"] is True
    assert inputs(hostUpdates="in-place")[INSTANCE]["userDataReplaceOnChange"] is False
    before, after = inputs()[INSTANCE], inputs(teleportVersion="18.7.4")[INSTANCE]
    assert {key for key in before if before[key] != after[key]} == {"userDataBase64"}


def test_pulumi_waits_for_a_change_in_place() -> None:
    ready = "command:local:Command teleport-host-ready"
    before, same = (inputs(hostUpdates="in-place", waitMinutes=minutes)[ready] for minutes in ("15", "20"))
    after = inputs(hostUpdates="in-place", acmeEmail="other@example.com")[ready]
    assert before["triggers"] == same["triggers"]
    assert before["triggers"] != after["triggers"]
    assert before["triggers"][1] in before["create"]


def test_another_way_to_the_cluster_replaces_no_object() -> None:
    tunnels = [inputs(kubeconfig=f"kind: Config\nclusters: [localhost:{port}]")[PROVIDER] for port in (8443, 9443)]
    assert tunnels[0]["kubeconfig"] != tunnels[1]["kubeconfig"]
    # The real provider replaces itself, and all objects with it, only when this changes.
    assert [tunnel["clusterIdentifier"] for tunnel in tunnels] == [CLUSTER.arn, CLUSTER.arn]
    assert inputs(applyToCluster="false")[PROVIDER]["clusterIdentifier"] != CLUSTER.arn


def test_a_stack_can_be_destroyed_after_its_cluster() -> None:
    declared = inputs()
    assert declared[PROVIDER]["deleteUnreachable"] == "true"
    assert declared["command:local:Command teleport-cluster-access-aws-auth"]["delete"].endswith(" --unreachable-ok")


def test_the_host_is_created_after_its_dns_record() -> None:
    # A component's parts wait for the component, and that waits for this.
    declared = record_proxy({"domainName": "teleport.example.com", "hostedZone": "example.com"})
    host_needs = declared.requests["teleport-host"].dependencies
    assert "teleport-address-record" in {urn.rpartition("::")[2] for urn in host_needs}


def test_an_additional_cluster_changes_nothing_but_its_own_parts() -> None:
    def names(where: Site, additional: str = "[]") -> dict[str, dict]:
        declared = record_proxy({"additionalClusters": additional}, where)
        return {f"{r.typ} {r.name}": plain(r.inputs) for r in declared.resources}

    assert changed(names(SITE), names(site("aws-auth", TOOLS), '[{"clusterName": "tools"}]')) == {
        "teleport-cluster-tools",
        "teleport-cluster-access-tools",
        "teleport-cluster-access-tools-impersonation",
        "teleport-cluster-access-tools-impersonators",
        "teleport-cluster-access-tools-access-entry",
        "teleport-network-cluster-api-tools",
        "teleport-teams-kube_clusters-tools",
    }


def test_an_unsafe_setting_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []
    monkeypatch.setattr("pulumi.log.warn", lambda text, *_: warned.append(text))
    inputs(allowAnonymousImpersonation="true")
    assert [text.partition(":")[0] for text in warned] == ["allowAnonymousImpersonation"]
    inputs()
    assert len(warned) == 1


def test_the_objects_of_a_cluster_out_of_reach_go_into_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "somebody's")
    declared = inputs(applyToCluster="false")
    provider = declared[PROVIDER]
    assert (provider["renderYamlToDirectory"], provider["kubeconfig"]) == ("cluster-objects/dev", "")
    assert not [name for name in declared if "aws-auth" in name]


def test_every_component_keeps_its_type_token_and_registers_its_outputs_last() -> None:
    tokens = {}
    for path in sorted((ROOT / "teleport_eks").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            source = ast.unparse(node) if isinstance(node, ast.FunctionDef) and node.name == "__init__" else ""
            if "super().__init__('teleport-eks:" in source:
                lines = source.splitlines()
                tokens[path.stem] = lines[1].split("'")[1]
                assert lines[-1].startswith("    self.register_outputs("), path
                assert source.count("register_outputs") == 1, path
    # With another token, every resource of the component would be replaced.
    assert tokens == {
        "address": "teleport-eks:index:ProxyAddress",
        "alarms": "teleport-eks:index:ProxyAlarms",
        "balancer": "teleport-eks:index:ProxyBalancer",
        "cluster_access": "teleport-eks:index:ClusterAccess",
        "host": "teleport-eks:index:ProxyHost",
        "host_group": "teleport-eks:index:ProxyHostGroup",
        "identity": "teleport-eks:index:ProxyIdentity",
        "network": "teleport-eks:index:ProxyNetwork",
        "proxy": "teleport-eks:index:TeleportProxy",
        "recordings": "teleport-eks:index:ProxyRecordings",
        "state": "teleport-eks:index:ProxyState",
        "storage": "teleport-eks:index:ProxyStorage",
        "team_access": "teleport-eks:index:TeamAccess",
    }

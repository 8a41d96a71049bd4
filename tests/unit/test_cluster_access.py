"""How a preview finds a lost entry of aws-auth. tests/cluster/test_impersonation.py has what the proxy may do."""

import subprocess
import sys

import pytest

from teleport_eks.aws_auth import configmap
from teleport_eks.aws_auth.text import add
from teleport_eks.cluster_access import Names, entry_lost_at
from tests.examples import ENTRY, record_proxy, site
from tests.recorder import plain


def test_a_lost_entry_is_a_change_in_a_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost_at(*maps: dict) -> str:
        found = {"items": list(maps), "metadata": {"resourceVersion": "7"}}
        monkeypatch.setattr(configmap, "connect", lambda _: None)
        monkeypatch.setattr(configmap, "send", lambda *_, **__: found)
        return entry_lost_at("clusters: [demo]", Names())

    metadata = {"resourceVersion": "5"}
    assert lost_at() == "7"
    assert lost_at({"metadata": metadata}) == "5"
    assert lost_at({"metadata": metadata, "data": {"mapRoles": add("", ENTRY)}}) == ""

    def input_and_ignored(version: str) -> tuple[dict, list]:
        declared = record_proxy({}, site(entry_lost_at=version))
        name = "teleport-cluster-access-aws-auth"
        (command,) = (plain(r.inputs) for r in declared.resources if r.name == name)
        return command["environment"], list(declared.requests[name].ignoreChanges)

    assert input_and_ignored("5") == ({"ENTRY_LOST_AT": "5"}, [])
    assert input_and_ignored("") == ({"ENTRY_LOST_AT": ""}, ["environment"])


def test_a_cluster_that_does_not_answer_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []
    monkeypatch.setattr("pulumi.log.warn", lambda text, *_: warned.append(text))
    assert entry_lost_at("clusters: [demo]", Names()) == ""
    assert [text.partition(":")[0] for text in warned] == ["Could not read aws-auth; skipped the drift check"]


def test_the_program_and_the_editor_import_only_what_they_need() -> None:
    """A stack with access entries needs no Kubernetes client, and one host no tables.

    The editor needs no Pulumi, and no models of the client.
    """
    script = """
import sys, teleport_eks.aws_auth.configmap
print(*(name in sys.modules for name in ("kubernetes", "kubernetes.client.api.core_v1_api", "pulumi")))
[sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "kubernetes"]
import teleport_eks.proxy
print(*(name in sys.modules for name in ("pulumi_kubernetes", "kubernetes", "pulumi_aws.dynamodb.table")))
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said == "True False False\nTrue False False\n"

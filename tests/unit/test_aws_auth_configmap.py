"""The editor's other half: the data of the whole map, and the command. tests/cluster has the real API server."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from kubernetes.client import ApiException

from sandbox.account import AWS_AUTH
from teleport_eks.aws_auth import __main__ as command
from teleport_eks.aws_auth import configmap
from teleport_eks.aws_auth.configmap import has, status, suspicious_entries, with_entry, without_entry
from teleport_eks.aws_auth.text import RefusedError, add, remove
from tests.examples import ENTRY, ROLE

NODES, USERS = AWS_AUTH["mapRoles"], AWS_AUTH["mapUsers"]
WITH_ENTRY = {**AWS_AUTH, "mapRoles": add(NODES, ENTRY)}
GUIDE = f"- userarn: {ROLE.replace('role/', 'role/path/')}\n  username: teleport\n  groups:\n  - teleport-group\n"


def otherwise(**changes: Any) -> str:
    return NODES + yaml.safe_dump([{**ENTRY.fields(), **changes}])


@pytest.mark.parametrize(
    "text",
    [
        otherwise(username="someone"),
        otherwise(groups=["system:masters"]),
        otherwise(groups=["teleport-group", "more"]),
        otherwise(groups="teleport-group"),
        otherwise(userid="AROA"),
        otherwise(rolearn="arn:aws:iam::111122223333:role/team/x/teleport"),  # with its path it does not match
        otherwise(username=None),
        NODES + f"- RoleARN: {ROLE.upper().replace('ROLE/', 'role/')}\n",
    ],
)
def test_a_different_entry_for_the_role_is_replaced_only_with_adopt_and_never_removed(text: str) -> None:
    with pytest.raises(RefusedError, match=r"line 11: .* is mapped differently; --adopt"):
        add(text, ENTRY)
    assert add(text, ENTRY, adopt=True) == add(NODES, ENTRY)
    assert remove(text, ENTRY) == text
    assert status({"mapRoles": text}, ENTRY) == "different"


def test_other_keys_are_not_touched() -> None:
    data = {**AWS_AUTH, "other": "\t\x00"}
    assert with_entry(data, ENTRY) == {**data, **WITH_ENTRY}
    assert without_entry({**data, **WITH_ENTRY}, ENTRY) == data


def test_the_guides_entry_under_users_is_moved_only_with_adopt() -> None:
    data = {**AWS_AUTH, "mapUsers": USERS + GUIDE}
    assert status(data, ENTRY) == "mapUsers"
    with pytest.raises(RefusedError, match=r"mapUsers, line 4: maps .*; --adopt moves it"):
        with_entry(data, ENTRY)
    assert with_entry(data, ENTRY, adopt=True) == WITH_ENTRY
    assert without_entry(data, ENTRY) == data


@pytest.mark.parametrize("key", ["mapRoles", "mapUsers"])
def test_an_entry_made_by_hand_is_removed_only_with_adopt(key: str) -> None:
    by_hand = {**AWS_AUTH, key: AWS_AUTH[key] + GUIDE.replace("teleport-group", "system:masters")}
    assert without_entry(by_hand, ENTRY) == by_hand
    assert without_entry(by_hand, ENTRY, adopt=True) == AWS_AUTH


def test_malformed_users_are_left_as_they_are() -> None:
    malformed = {"mapUsers": "- [\n"}
    assert with_entry({**AWS_AUTH, **malformed}, ENTRY, adopt=True) == {**WITH_ENTRY, **malformed}


def test_entries_that_have_no_effect_are_reported() -> None:
    session, path = "arn:aws:sts::111122223333:assumed-role/a/b", "arn:aws:iam::111122223333:role/p/q/c"
    text = f"- rolearn: {session}\n- rolearn: {path}\n- rolearn: A\n- rolearn: a\n- sso: {{}}\n- sso: {{}}\n"
    assert suspicious_entries({"mapRoles": text}) == [
        f"mapRoles, line 1: {session} never matches: EKS looks a session up by the ARN of its role",
        f"mapRoles, line 2: {path} never matches: write it without the path, arn:aws:iam::111122223333:role/c",
        "mapRoles, line 4: a overrides line 3",
    ]


def test_a_user_is_found_whichever_role_is_mapped_to_it() -> None:
    assert has(WITH_ENTRY, ENTRY.username, ENTRY.groups[0])
    assert not has(WITH_ENTRY, ENTRY.username, "another")
    assert not has({}, ENTRY.username, ENTRY.groups[0])
    for text in ("", "``", NODES, "- rolearn: x\n  username: teleport\n  groups: teleport-group\n"):
        assert not has({"mapRoles": text}, ENTRY.username, ENTRY.groups[0])
    with pytest.raises(RefusedError, match="mapRoles, line 2, column 1"):
        has({"mapRoles": "a: [b"}, ENTRY.username, ENTRY.groups[0])


@pytest.mark.parametrize(
    ("reason", "is_passing"),
    [
        ("SSLError\nTLS/SSL connection has been closed (EOF) (_ssl.c:992)", True),
        ("SSLError\n[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate", False),
    ],
)
def test_a_broken_tls_connection_is_retried_and_a_wrong_certificate_is_not(
    monkeypatch: pytest.MonkeyPatch, reason: str, is_passing: bool
) -> None:
    answers = [ApiException(status=0, reason=reason), {"data": {"mapRoles": ""}}]
    monkeypatch.setattr(configmap, "read", Mock(side_effect=answers))
    nothing: Any = None
    if is_passing:
        assert configmap.edit(nothing, lambda data: data) == ({"mapRoles": ""}, {"mapRoles": ""})
    else:
        with pytest.raises(RefusedError, match="certificate verify failed"):
            configmap.edit(nothing, lambda data: data)


# The command.


def run(kubeconfig: Path, action: str, *more: str) -> int:
    entry = ["--role-arn", ROLE, "--username", "teleport", "--group", "teleport-group"]
    return command.main([action, "--kubeconfig", str(kubeconfig), *entry, *more])


def test_a_stack_can_be_destroyed_after_its_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(configmap, "PATIENCE_UNANSWERED", 0.2)
    kubeconfig = tmp_path / "kubeconfig"
    gone = {"current-context": "x", "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}]}
    server = {"name": "x", "cluster": {"server": "https://127.0.0.1:1"}}
    kubeconfig.write_text(json.dumps({**gone, "clusters": [server], "users": [{"name": "x", "user": {}}]}))

    assert run(kubeconfig, "remove", "--unreachable-ok") == 0
    said = capsys.readouterr().err
    assert said.startswith("warning: gave up after ")
    assert f"may still map {ROLE}" in said
    assert f"remove --kubeconfig ~/.kube/config --role-arn {ROLE} --username teleport --group teleport-group" in said
    for action, *option in (["remove"], ["add", "--unreachable-ok"]):
        assert run(kubeconfig, action, *option) == 1
        said = capsys.readouterr().err
        assert said.startswith("error: gave up after ")
        assert "cannot reach the API server" in said
        assert "refused" in said
        assert said.count("\n") == 1


@pytest.mark.parametrize("text", ["", "- a\n", "a: [", "{}"])
def test_a_file_that_is_no_kubeconfig_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, text: str
) -> None:
    (tmp_path / "kubeconfig").write_text(text)
    assert run(tmp_path / "kubeconfig", "add") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: cannot use the kubeconfig: ")
    assert error.count("\n") == 1

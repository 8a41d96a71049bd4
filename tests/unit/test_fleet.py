"""How many stacks are run, and the file of a new stack."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from moto import mock_aws

from fleet.new_stack import NotWrittenError, write_stack
from fleet.run import Result, run, table
from sandbox.account import REGION, Account, fill
from teleport_eks.settings import parse


def collect(names: list[str], operation: Callable[..., dict], parallel: int = 4) -> tuple[list[Result], list[str]]:
    said: list[str] = []
    return run(names, operation, said.append, parallel=parallel), said


def test_a_failed_stack_stops_no_other() -> None:
    def operation(name: str, say: Callable) -> dict[str, int]:
        if name == "b":
            raise RuntimeError("updating failed\n  error: no such cluster\n  error: exit code 1\nstderr:\n")
        say("error: careful")
        return {"same": 3, "read": 2, "create": 2, "update": 1, "delete": 0}

    results, said = collect(["a", "b", "c"], operation)
    assert [result.stack for result in results] == ["a", "b", "c"]
    assert [bool(result.error) for result in results] == [False, True, False]
    assert results[0].summary() == "create 2, update 1"
    assert "a: error: careful" in said
    assert any(line.startswith("b: FAILED: error: no such cluster (") for line in said)
    assert "FAILED" in table(results).splitlines()[1]


def test_fifty_stacks_run_five_at_a_time() -> None:
    lock, running, most = threading.Lock(), set(), []
    five = threading.Barrier(5, timeout=60)

    def operation(name: str, _: Callable) -> dict[str, int]:
        with lock:
            running.add(name)
            most.append(len(running))
        five.wait()
        with lock:
            running.discard(name)
        return {}

    names = [f"stack-{number}" for number in range(50)]
    results, said = collect(names, operation, parallel=5)
    assert [result.stack for result in results] == names
    assert max(most) == 5
    assert sum("no changes" in line for line in said) == 50


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr("fleet.new_stack._my_address", lambda: "198.51.100.4")
    with mock_aws():
        fill(Account(""))
        yield


def write(project: Path, name: str = "demo", email: str = "platform@example.com") -> str:
    return write_stack(project, name, REGION, email)


@pytest.mark.usefixtures("account")
def test_the_file_of_a_new_stack_describes_the_account_and_is_accepted(tmp_path: Path) -> None:
    assert "pulumi up -s demo" in write(tmp_path)
    text = (tmp_path / "Pulumi.demo.yaml").read_text()
    assert "demo-public-a, in eu-west-1a" in text
    assert "\n  teleport-eks:subnetId: subnet-" in text, "written down, so that the proxy stays there"
    assert "[198.51.100.4/32]   # your current address" in text
    assert "CONFIG_MAP, so auto means aws-auth" in text
    assert "public and private; the public endpoint admits 0.0.0.0/0" in text
    config = {k.removeprefix("teleport-eks:"): v for k, v in yaml.safe_load(text)["config"].items() if "teleport" in k}
    assert config["clusterName"] == "demo"
    assert parse({**config, "teams": "[]"}, "x").acme_email == "platform@example.com"


@pytest.mark.usefixtures("account")
def test_the_file_has_a_place_for_a_missing_email(tmp_path: Path) -> None:
    write(tmp_path, email="")
    assert 'teleport-eks:acmeEmail: ""   # for example' in (tmp_path / "Pulumi.demo.yaml").read_text()


@pytest.mark.usefixtures("account")
def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.demo.yaml").write_text("mine")
    with pytest.raises(NotWrittenError, match="exists; nothing was written"):
        write(tmp_path)
    assert (tmp_path / "Pulumi.demo.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "says"), [("demo", "cannot read the account: Unable to locate"), ("", "which cluster?")]
)
def test_a_missing_name_or_missing_credentials_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str
) -> None:
    monkeypatch.setattr("botocore.session.Session.get_credentials", lambda _: None)
    with pytest.raises(NotWrittenError, match=says):
        write(tmp_path, name)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("account")
def test_an_unknown_cluster_is_an_error_that_lists_the_others(tmp_path: Path) -> None:
    with pytest.raises(NotWrittenError, match="there are: demo, staging"):
        write(tmp_path, "dmeo")
    assert not list(tmp_path.iterdir())

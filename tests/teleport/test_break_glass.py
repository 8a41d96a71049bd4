"""docs/break-glass.md: its own commands, on a host with the real Teleport."""

import json
import re
from collections.abc import Iterator

import pexpect
import pytest

from sandbox.engine import ROOT
from tests.e2e.shell import blocks
from tests.teleport.people import Person
from tests.teleport.stage import Site
from tests.waiting import wait_for

MAKE, END, LOCK, LIFT = (block.commands for block in blocks(ROOT / "docs/break-glass.md"))
GET = "kubectl", "get", "pods", "-n", "shop"
USER = "break-glass-alice"


@pytest.fixture
def stack(site: Site) -> Iterator[Site]:
    site.up()
    yield site
    site.world.clear()
    for lock in site.look()["locks"]:
        site.tctl("rm", f"lock/{lock}")


def break_glass(stack: Site, commands: str) -> Person:
    """Alice, with the kubeconfig that the commands print in her clipboard."""
    said = stack.on_host(commands.replace("kube-acme-platform", "kube-acme-dev").replace("production", "demo"))
    alice = stack.person("alice")
    stack.laptop.write(f"{alice.home}/kubeconfig", said[said.index("apiVersion:") :], 0o600)
    assert stack.host.sh("ls /root/break-glass", check=False) == ""
    return alice


def test_access_without_github(stack: Site) -> None:
    stack.world.fault("^github", "fail")
    stack.person("ivy", ("acme", "dev")).is_refused()
    alice = break_glass(stack, MAKE)
    assert "dev" in alice.can("kubectl", "auth", "whoami")
    stack.world.clear()
    wait_for(lambda: USER in stack.look()["people"], "Teleport does not show the user")
    person = stack.look()["people"][USER]
    assert (person["roles"], person["state"]) == (["kube-acme-dev"], "not from GitHub: made with tctl")

    shell = alice.open_shell()
    stack.on_host(END)
    shell.expect(pexpect.EOF)
    assert "access denied" in alice.cannot(*GET)
    wait_for(lambda: stack.look()["people"][USER]["state"] == "locked: GitHub is back", "the lock is not shown")
    events = [json.loads(line) for line in stack.host.sh("cat /var/lib/teleport/log/events.log").splitlines()]
    mine = {e["event"] for e in events if USER in (e.get("user"), e.get("name"), e.get("identity", {}).get("user"))}
    assert mine >= {"user.create", "cert.create", "kube.request", "session.start", "session.end"}
    (issued,) = [e["identity"] for e in events if e["event"] == "cert.create" and e["identity"]["user"] == USER]
    assert person["until"] <= f"{issued['expires'][:19]}Z"
    stack.tctl("users", "rm", USER)


def test_the_user_is_gone_after_its_time_and_then_the_certificate_is_worth_nothing(stack: Site) -> None:
    alice = break_glass(stack, MAKE.replace("+1 hour", "+15 seconds"))
    alice.can(*GET)
    wait_for(lambda: alice.run(*GET).returncode, "the user outlives its time")
    assert "does not exist" in alice.cannot(*GET)
    assert USER not in stack.look()["people"]


def test_a_person_is_locked_out_everywhere_and_let_in_again(stack: Site) -> None:
    lena = stack.person("lena", ("acme", "dev"))
    lena.sign_in()
    shell = lena.open_shell()
    stack.on_host(LOCK.replace("GITHUB-LOGIN", "lena"))
    shell.expect(pexpect.EOF)
    assert "access denied" in lena.cannot(*GET)
    elsewhere = stack.person("lena", ("acme", "dev"))
    elsewhere.home = "/home/elsewhere"
    stack.laptop.sh(f"mkdir {elsewhere.home}")
    assert "laptop lost" in elsewhere.is_refused()

    wait_for(lambda: stack.look()["locks"], "the lock is not shown")
    ((lock, item),) = stack.look()["locks"].items()
    assert item["target"] == {"user": "lena"}
    said = stack.on_host(LIFT.replace("LOCK-ID", lock))
    assert re.search(rf"name: {lock}", said)
    wait_for(lambda: lena.run(*GET).returncode == 0, "the sign-in on the lost laptop does not work again")
    elsewhere.sign_in()

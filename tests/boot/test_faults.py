"""The fault matrix: every step that leaves the process, in every way that it can go wrong.

Each case ends in a working proxy, or in a failure that names its step and loses nothing; and in a
working proxy as soon as the fault is gone, by the same unit run again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.boot.conftest import Rig
from tests.boot.rig import Fault, Host, Run, wait_for

DENIED = b'{"__type": "AccessDeniedException", "message": "not authorized"}'
PROBLEM = b'{"type": "urn:ietf:params:acme:error:serverInternal", "detail": "try later", "status": 500}'
ROLE: dict[str, Any] = {
    "kind": "role",
    "version": "v7",
    "metadata": {"name": "kube-dev"},
    "spec": {"allow": {"kubernetes_groups": ["dev"], "kubernetes_labels": {"*": "*"}}},
}
CONNECTOR: dict[str, Any] = {
    "kind": "github",
    "version": "v3",
    "metadata": {"name": "github"},
    "spec": {
        "client_id": "id",
        "redirect_url": "https://h/v1/webapi/github/callback",
        "teams_to_roles": [{"organization": "acme", "team": "dev", "roles": ["kube-dev"]}],
    },
}


@dataclass(frozen=True)
class Step:
    """A step that can be spoiled from outside, in one of two ways: a server's answer or a command's."""

    unit: str
    named: str  # how its failure is announced
    limit: str  # the setting for how many seconds it may take
    server: str = ""
    command: str = ""
    text: str = ""  # which of the command's calls
    answer: bytes = b""

    def spoil(self, host: Host, kind: str, times: int = 1_000_000) -> Callable[[], bool]:
        """Returns what tells whether the fault has been met. What is then waited for in vain is not waited for long."""
        if times > 1 and (kind == "hang" or self.limit == "ADDRESS_WAIT"):
            host.configure(**{self.limit: "5"})
        if self.command:
            host.spoil(self.command, kind, times, self.text)
            return lambda: bool(host.sh(f"ls /run/rig/{self.command}.reached 2>/dev/null", check=False))
        more: dict[str, Any] = {"status": 400 if self.answer == DENIED else 500, "body": self.answer}
        fault: Fault = host.world.fault(self.server, kind, times, **(more if kind == "fail" else {}))
        return fault.reached.is_set


BOOT, CERTIFICATE, ACCESS = "teleport-bootstrap", "teleport-certificate", "teleport-access"
REFUSED = "step certificate: refused"
STEPS = {
    "address": Step(BOOT, "step address: failed", "ADDRESS_WAIT", server="imds GET .*public-ipv4"),
    "packages": Step(BOOT, "step packages: failed", "DNF_TIME", command="dnf", text="install"),
    "download": Step(BOOT, "step teleport: failed", "STALL_TIME", server="cdn GET .*tar.gz$"),
    "digest": Step(BOOT, "step teleport: failed", "STALL_TIME", server="cdn GET .*sha256$"),
    "cluster": Step(BOOT, "step kubernetes: failed", "AWS_TIME", server="aws GET /clusters/demo", answer=DENIED),
    "disk": Step(BOOT, "step volume: failed", "DISK_TIME", command="mkfs.xfs"),
    "order": Step(CERTIFICATE, REFUSED, "CERTBOT_TIME", server="acme POST /order-plz", answer=PROBLEM),
    "challenge": Step(CERTIFICATE, REFUSED, "CERTBOT_TIME", server="acme POST /chalZ", answer=PROBLEM),
    "ssm": Step(ACCESS, "step access: failed", "COMMAND_TIME", server="aws AmazonSSM", answer=DENIED),
    "tctl": Step(ACCESS, "step access: failed", "COMMAND_TIME", command="tctl"),
}
# A server that says 200 to a download that is rubbish is caught by its digest; a disk that is
# rubbish is not a command that prints some: see test_host.py for disks with something on them.
RUBBISH = sorted(STEPS.keys() - {"disk", "packages"})


@pytest.fixture
def host(request: pytest.FixtureRequest, rig: Rig, step: str) -> Host:
    """A host just before the step: new for the bootstrap, running for what comes after it."""
    if STEPS[step].unit == BOOT:
        return request.getfixturevalue("bare")
    host: Host = request.getfixturevalue("running")
    if step in ("ssm", "tctl"):
        rig.parameters(host, **{"role__kube-dev": ROLE, "connector": CONNECTOR, "secret": "s3cret"})
    return host


def assert_works(host: Host, step: str) -> None:
    assert host.ping()
    if STEPS[step].unit == CERTIFICATE:
        assert host.wait_trusted()
    if STEPS[step].unit == ACCESS:
        assert set(host.resources()) == {"role/kube-dev", "github/github", "health_check_config/default-kube"}


def run_until_it_works(host: Host, step: str, tries: int = 1) -> None:
    runs: list[Run] = []
    while not runs or (runs[-1].code and len(runs) < tries):
        runs.append(host.start(STEPS[step].unit))
    assert runs[-1].code == 0, "\n".join(map(str, runs))
    assert_works(host, step)


def assert_fails_by_name(host: Host, step: str, before: dict[str, Any] | None) -> None:
    run = host.start(STEPS[step].unit)
    assert run.code, run
    assert STEPS[step].named in run.console, run
    now = host.ping()
    assert now == before or not before, "the proxy that was running is not the same any more"
    assert "s3cret" not in run.console + run.journal


@pytest.mark.parametrize("step", sorted(STEPS))
def test_fails_once(host: Host, step: str) -> None:
    STEPS[step].spoil(host, "fail", times=1)
    run_until_it_works(host, step, tries=2)


@pytest.mark.parametrize("step", sorted(STEPS))
def test_fails_for_long(host: Host, step: str) -> None:
    before = host.ping()
    STEPS[step].spoil(host, "fail")
    for _ in range(2):
        assert_fails_by_name(host, step, before)
    host.repair()
    run_until_it_works(host, step)


@pytest.mark.parametrize("step", sorted(STEPS))
def test_hangs(host: Host, step: str) -> None:
    before = host.ping()
    STEPS[step].spoil(host, "hang")
    assert_fails_by_name(host, step, before)
    host.repair()
    run_until_it_works(host, step)


@pytest.mark.parametrize("step", RUBBISH)
def test_returns_rubbish(host: Host, step: str) -> None:
    before = host.ping()
    STEPS[step].spoil(host, "rubbish")
    assert_fails_by_name(host, step, before)
    host.repair()
    run_until_it_works(host, step)


@pytest.mark.parametrize("step", sorted(STEPS))
def test_killed_in_the_middle(host: Host, step: str) -> None:
    reached = STEPS[step].spoil(host, "hang", times=1)
    process = host.begin(STEPS[step].unit)
    wait_for(lambda: reached() or process.poll() is not None, "the step was not reached")
    assert process.poll() is None, process.communicate()
    host.kill(STEPS[step].unit)
    process.communicate()
    host.repair()
    run_until_it_works(host, step)

"""The fault matrix: every step that talks to something outside, in every way that it can fail.

Each fault ends in a failure that names the step and loses nothing. Once the fault is gone, the same unit works.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.boot.rig import ACCESS, ALWAYS, BOOT, CERTIFICATE, SECRET, Host, Rig
from tests.waiting import wait_for

DENIED = b'{"__type": "AccessDeniedException", "message": "not authorized"}'
PROBLEM = b'{"type": "urn:ietf:params:acme:error:serverInternal", "detail": "try later", "status": 500}'


@dataclass(frozen=True)
class Step:
    """A step that a server's answer, or a command on the host, can make fail."""

    unit: str
    failure: str  # how the step reports its failure
    limit: str  # the setting for how many seconds it may take
    server: str = ""
    command: str = ""
    text: str = ""  # which of the command's calls
    answer: bytes = b""

    def inject(self, host: Host, kind: str, times: int = ALWAYS) -> Callable[[], bool]:
        """Injects a fault that lasts, or happens once. Returns a function that tells whether it has happened."""
        if times == ALWAYS and (kind == "hang" or self.limit == "ADDRESS_WAIT"):
            host.configure(**{self.limit: "3"})
        if self.command:
            host.break_command(self.command, kind, times, self.text)
            return host.path(f"/run/rig/{self.command}.reached").exists
        more: dict[str, Any] = {"status": 400 if self.answer == DENIED else 500, "body": self.answer}
        return host.world.fault(self.server, kind, times, **(more if kind == "fail" else {})).reached.is_set


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
PRINT_NOTHING = {"disk", "packages"}  # nobody reads what these commands print
pytestmark = pytest.mark.parametrize("step", sorted(STEPS))


@pytest.fixture
def host(request: pytest.FixtureRequest, rig: Rig, step: str) -> Host:
    """A new host for the bootstrap, and one that runs for the units that come later."""
    if STEPS[step].unit == BOOT:
        return request.getfixturevalue("bare")
    host: Host = request.getfixturevalue("running")
    rig.set_teams(host, "dev")
    return host


def assert_works(host: Host, step: str) -> None:
    host.repair()
    host.succeed(STEPS[step].unit)
    if STEPS[step].unit == CERTIFICATE:
        host.wait_trusted()  # the stand-in may refuse a client in the moment in which it changes its pair
    assert host.ping()
    if STEPS[step].unit == ACCESS:
        assert set(host.resources()) == {"role/dev", "github/github", "health_check_config/default-kube"}


def assert_fails(host: Host, step: str, kind: str) -> None:
    host.repair()
    before = host.ping()
    STEPS[step].inject(host, kind)
    run = host.fail(STEPS[step].unit, STEPS[step].failure)
    assert host.ping() == before or not before, "the proxy that was running is not the same any more"
    assert SECRET not in run.console + run.journal


def test_a_step_that_fails(host: Host, step: str) -> None:
    for kind in ("fail", "fail", *(["rubbish"] if step not in PRINT_NOTHING else []), "hang"):
        assert_fails(host, step, kind)
    assert_works(host, step)


def test_a_step_that_is_killed_or_hit_by_a_power_cut(host: Host, step: str) -> None:
    has_happened = STEPS[step].inject(host, "hang", times=1)
    process = host.begin(STEPS[step].unit)
    wait_for(lambda: has_happened() or process.poll() is not None, "the step was not reached")
    assert process.poll() is None, process.communicate()
    if STEPS[step].unit == BOOT:
        host.reboot()
    else:
        host.kill(STEPS[step].unit)
    process.communicate()
    assert_works(host, step)

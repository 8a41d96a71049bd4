"""What people did is kept under their name, and only an auditor sees it."""

import json

import pexpect
import pytest

from tests.teleport.people import SHELL, Person
from tests.teleport.stage import Site
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def ada(stack: Site) -> Person:
    """Was in a pod, and is out again."""
    person = stack.person("ada", ("acme", "dev"))
    person.sign_in()
    session = person.open_shell()
    session.sendline("echo said-$((40 + 2))")
    session.expect_exact("said-42")
    session.sendline("exit")
    session.expect(pexpect.EOF)
    assert session.wait() == 0
    return person


def sessions(person: Person) -> dict[str, str]:
    listed = json.loads(person.can("tsh", "recordings", "ls", "--format=json"))
    return {item["sid"]: item["user"] for item in listed}


def test_an_auditor_lists_and_plays_what_others_did(stack: Site, ada: Person) -> None:
    auditor = stack.person("olga", ("acme", "audit"))
    auditor.sign_in()
    # It is uploaded after the session's end.
    wait_for(lambda: ada.login in sessions(auditor).values(), "the recording is not listed")
    (session,) = [sid for sid, user in sessions(auditor).items() if user == ada.login]
    play = "tsh", "play", "--format=text", session
    wait_for(lambda: "said-42" in auditor.run(*play).stdout, "the recording is not played")
    # And that is all.
    assert "not found" in auditor.cannot("tsh", "kube", "login", "demo")
    # And nobody else does: not even the person whose recording it is.
    assert "access denied" in ada.cannot("tsh", "recordings", "ls")
    assert "access denied" in ada.cannot(*play)


def test_the_audit_log_has_the_person(stack: Site, ada: Person) -> None:
    # The CloudWatch agent finds the day's file by this pattern; events.log leads to it.
    file = stack.host.sh("ls /var/lib/teleport/log/*/*.log")
    assert file == stack.host.sh("readlink -f /var/lib/teleport/log/events.log")
    events = [json.loads(line) for line in stack.host.sh(f"cat {file}").splitlines()]
    seen = {event["event"] for event in events if event.get("user") == ada.login}
    assert seen >= {"user.login", "session.start", "session.end", "exec"}


def test_without_room_for_a_recording_there_is_no_session(stack: Site) -> None:
    finn = stack.person("finn", ("acme", "dev"))
    finn.sign_in()
    # No file can grow from here on, as on a volume that is full.
    stack.host.sh("fallocate -l 1G /var/lib/teleport/full || cat /dev/zero >/var/lib/teleport/full", check=False)
    try:
        session = finn.spawn(*SHELL, "-n", "shop", "web", "--", "sh", "-i")
        session.expect(pexpect.EOF)
        assert "# " not in (session.before or "")
        assert session.wait() != 0
        finn.can("kubectl", "get", "pods", "-n", "shop")
    finally:
        stack.host.sh("rm /var/lib/teleport/full")
    finn.open_shell().close()

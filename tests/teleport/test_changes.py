"""Teams and the secret change while people work."""

import json
import time
from datetime import UTC, datetime, timedelta

import pexpect
import pytest

from tests.teleport.github import GitHub
from tests.teleport.people import Person
from tests.teleport.stage import Site, developers
from tests.waiting import wait_for

GET = "kubectl", "get", "pods", "-n", "shop"


def member(site: Site, slug: str) -> Person:
    """Somebody at work who is in no other team. Each test has a team of its own, which no other one removes."""
    site.up(developers(slug))
    person = site.person(slug, ("acme", slug))
    person.sign_in()
    person.can(*GET)
    return person


def loses_access(person: Person) -> None:
    wait_for(lambda: person.run(*GET).returncode, "the person keeps the access of a team that is gone")
    person.is_refused()


def test_a_team_that_is_removed_and_comes_back(site: Site) -> None:
    paul = member(site, "painters")
    session = paul.open_shell()
    site.up()
    session.expect(pexpect.EOF)
    loses_access(paul)
    again = site.up()
    assert again.console == "", "nothing is done again each minute"
    site.up(developers("painters"))
    back = time.monotonic()
    wait_for(lambda: "Logged in as" in paul.try_to_sign_in(), "the team is back, and its member is not")
    assert time.monotonic() - back < 30, "it was a lock's end that let the member in"
    paul.sign_in()
    paul.can(*GET)


def test_a_stream_that_is_open_goes_on_until_teleport_is_restarted(site: Site) -> None:
    walt = member(site, "watchers")
    watch = walt.spawn(*GET, "--watch")
    watch.expect_exact("web")
    site.up()
    loses_access(walt)
    assert watch.isalive(), "the docs promise less than this"
    site.kill_teleport()
    watch.expect(pexpect.EOF)


def test_the_role_of_a_removed_team_goes_when_nobody_holds_it(site: Site) -> None:
    rosa = member(site, "roofers")
    site.up()
    assert "kube-acme-roofers" in site.tctl("get", "roles")
    site.tctl("users", "rm", rosa.login)
    run = site.up()
    assert "removed role/kube-acme-roofers" in run.console, run


def test_a_team_that_is_renamed(site: Site) -> None:
    nora = member(site, "new")
    GitHub.teams[nora.login] = [("acme", "renamed")]
    site.up(developers("renamed"))
    wait_for(lambda: nora.run(*GET).returncode, "the person keeps the access of a team that is gone")
    nora.sign_in()
    assert "renamed" in nora.can("kubectl", "auth", "whoami")


def test_a_sign_in_lasts_as_long_as_the_stack_says(site: Site) -> None:
    site.up(developers("temps"), sessionTtl="90m")
    tina = site.person("tina", ("acme", "temps"))
    tina.sign_in()
    until = json.loads(tina.can("tsh", "status", "--format=json"))["active"]["valid_until"]
    left = datetime.fromisoformat(until) - datetime.now(UTC)
    assert timedelta(minutes=80) < left <= timedelta(minutes=90)
    site.up()


def test_a_new_secret(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    sara = member(site, "sales")
    before = site.pid()
    with monkeypatch.context() as at_github:
        at_github.setattr(GitHub, "client_secret", "the second secret")
        sara.is_refused()
        site.up(developers("sales"))
        sara.sign_in()
    assert site.pid() == before
    site.up()  # with the first one again

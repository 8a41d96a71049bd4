"""What happens to the host, and what people notice of it."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pexpect
import pytest

from tests.teleport.people import WITHIN, Person
from tests.teleport.stage import TEAMS, Site, team
from tests.waiting import wait_for

GET = "kubectl", "get", "pods", "-n", "shop"


@pytest.fixture(scope="module")
def signed_in(site: Site) -> Person:
    """Signs in once; all that follows has to leave that alone."""
    site.up()
    person = site.person("mia", ("acme", "dev"))
    person.sign_in()
    return person


@pytest.fixture
def mia(site: Site, signed_in: Person) -> Iterator[Person]:
    signed_in.can(*GET)
    authority = site.authority()
    yield signed_in
    wait_for(lambda: signed_in.run(*GET).returncode == 0, "who was signed in is not any more")
    assert site.authority() == authority


def boot(site: Site) -> None:
    run = site.host.start("teleport-bootstrap", timeout=120)
    assert run.code == 0, run
    assert site.host.is_trusted()
    assert site.world.requests, "the host asked nobody anything"
    assert site.world.orders() == 0, "the certificate is on the volume"


@pytest.mark.usefixtures("mia")
def test_a_reboot(site: Site) -> None:
    site.world.clear()
    site.host.reboot()
    boot(site)


@pytest.mark.usefixtures("mia")
def test_another_instance(site: Site) -> None:
    site.world.clear()
    site.host.power_off()
    site.host = site.new_host()
    boot(site)
    assert site.access().code == 0


@pytest.mark.usefixtures("mia")
def test_a_certificate_is_renewed(site: Site) -> None:
    before, pid = site.host.certificate(), site.pid()
    site.host.sh("sed -i '1i renew_before_expiry = 4000 days' /var/lib/teleport/letsencrypt/renewal/*.conf")
    run = site.host.start("teleport-certificate", timeout=120)
    assert run.code == 0, run
    wait_for(lambda: site.host.certificate() not in ("", before), "the new certificate is not served")
    assert site.host.is_trusted()
    assert site.pid() == pid


def test_a_cluster_that_is_away_when_teleport_starts(site: Site, mia: Person) -> None:
    site.plane.kill_api_server()
    site.kill_teleport()
    mia.cannot(*GET)
    pid = site.pid()
    site.start_control_plane()
    wait_for(lambda: mia.run(*GET).returncode == 0, "Teleport does not find the cluster again")
    assert site.pid() == pid


@pytest.mark.usefixtures("mia")
def test_teleport_killed_while_a_person_signs_in(site: Site) -> None:
    nils = site.person("nils", ("acme", "dev"))
    fault = site.world.fault("github POST /login/oauth/access_token", "hang")
    with ThreadPoolExecutor() as aside:
        refused = aside.submit(nils.is_refused)
        assert fault.reached.wait(WITHIN)
        site.kill_teleport()
        site.world.clear()
        refused.result()
    nils.sign_in()


@pytest.mark.usefixtures("mia")
def test_teleport_killed_while_access_is_applied(site: Site) -> None:
    fault = site.world.fault("github GET /orgs/globex/sso", "hang")
    site.declare(*TEAMS, {**team("dev", kubernetesGroups=["globex"]), "organization": "globex"})
    process = site.host.begin("teleport-access")
    assert fault.reached.wait(WITHIN)
    site.kill_teleport()
    site.world.clear()
    assert process.wait(120) != 0
    run = site.access()
    assert run.code == 0, run
    assert re.search(r"applied .*github/github", run.console), run


def test_teleport_killed_in_a_session(site: Site, mia: Person) -> None:
    session = mia.open_shell()
    site.kill_teleport()
    session.expect(pexpect.EOF)


def test_the_cluster_is_not_shown_as_unhealthy(site: Site, signed_in: Person) -> None:
    site.kill_teleport()  # what was shown before is announced anew after minutes only, or now
    signed_in.can(*GET)
    wait_for(lambda: '"unhealthy"' not in site.tctl("get", "kube_server", "--format=json"), "it is unhealthy")

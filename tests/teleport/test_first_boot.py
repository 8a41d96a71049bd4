"""From nothing to a signed-in person."""

from tests.boot.rig import wait_for
from tests.teleport.stage import Site


def test_the_first_boot_ends_without_github(site: Site) -> None:
    assert site.boot.code == 0, site.boot
    timers = site.host.sh("cat /run/rig/timers")
    assert "teleport-access.timer" in timers
    assert "teleport-certificate.timer" in timers


def test_the_first_certificate_is_served_without_a_restart(site: Site) -> None:
    wait_for(site.is_trusted, "the certificate is not served, or not trusted")
    assert site.host.sh("grep -c 'Starting Kube service' /var/log/rig/teleport.service.log") == "1"


def test_github_comes_later_and_the_instance_is_not_touched(site: Site) -> None:
    alice, before = site.person("alice", ("acme", "dev")), site.pid()
    site.up()
    alice.sign_in()
    assert site.pid() == before
    assert "web" in alice.can("kubectl", "get", "pods", "-n", "shop")

"""From nothing to a signed-in person."""

from tests.teleport.stage import Site


def test_the_first_boot_ends_without_github(site: Site) -> None:
    assert site.boot.code == 0, site.boot
    timers = site.host.read("/run/rig/timers")
    assert "teleport-access.timer" in timers
    assert "teleport-certificate.timer" in timers


def test_the_first_certificate_is_served_without_a_restart(site: Site) -> None:
    assert not site.restarted
    assert site.host.is_trusted()


def test_github_comes_later_and_the_instance_is_not_touched(site: Site) -> None:
    alice, before = site.person("alice", ("acme", "dev")), site.pid()
    site.up()
    alice.sign_in()
    assert site.pid() == before
    assert "web" in alice.can("kubectl", "get", "pods", "-n", "shop")

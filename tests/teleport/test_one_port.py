"""With listenerMode multiplex, all that people do goes through port 443. A live stack changes to that, and back."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pexpect
import pytest
import yaml

from teleport_eks.address import sign_in_command
from tests.teleport.people import Person
from tests.teleport.stage import NAME, Site, team
from tests.waiting import wait_for

GET = "kubectl", "get", "pods", "-n", "shop"
SAILORS = team("sailors", kubernetesGroups=["dev"], logins=["root"], auditor=True)


def change(site: Site, mode: str) -> None:
    """`pulumi up` with another listenerMode: a new instance on the same volume."""
    site.host.power_off()
    site.host = site.new_host(listener_mode=mode)
    run = site.host.start("teleport-bootstrap", timeout=120)
    assert run.code == 0, run
    site.up(SAILORS, listenerMode=mode)
    assert site.host.is_trusted()


@pytest.fixture(scope="module")
def signed_in_before(site: Site) -> Iterator[Person]:
    site.up(SAILORS)
    person = site.person("sinbad", ("acme", "sailors"))
    person.sign_in()
    person.can(*GET)
    change(site, "multiplex")
    yield person
    change(site, "separate")


@pytest.fixture
def sailor(site: Site, signed_in_before: Person) -> Person:
    person = site.person(f"{signed_in_before.login}-2", ("acme", "sailors"))
    person.sign_in()
    return person


def test_who_was_signed_in_before_signs_out_and_in_again(site: Site, signed_in_before: Person) -> None:
    person = signed_in_before
    person.cannot(*GET)
    person.login_command = sign_in_command(site.host.config.settings, NAME)
    said = person.cannot(*person.login_command.split())
    assert f"not available at {NAME}:3080" in said, "then the docs need not ask for `tsh logout`"
    person.sign_in()
    person.can(*GET)


def test_nothing_else_of_the_clients_is_open(site: Site, sailor: Person) -> None:
    opened = {line.split()[3] for line in site.host.sh("ss -Hltn").splitlines()}
    public = {address.rpartition(":")[2] for address in opened if not address.startswith("127.")}
    assert public == {"443", "3022", "3025"}, "the last two are closed to clients by the firewall"
    (cluster,) = yaml.safe_load(sailor.laptop.sh(f"cat {sailor.home}/kubeconfig"))["clusters"]
    assert cluster["cluster"]["server"] == f"https://{NAME}:443"
    assert cluster["cluster"]["tls-server-name"] == f"kube-teleport-proxy-alpn.{NAME}", "the docs name it"


def test_a_session_is_recorded_and_no_reboot_ends_it(site: Site, sailor: Person) -> None:
    site.host.configure(MAINTENANCE_WINDOW=f"{datetime.now(UTC):%a %H}:00", TZ="UTC")
    site.host.write("/run/rig/reboot-hint", "Reboot is required")
    site.host.write("/run/rig/uptime", "90000.00 1.00\n")
    site.host.sh("mount --bind /run/rig/uptime /proc/uptime")
    session = sailor.open_shell()
    session.sendline("echo said-$((40 + 2))")
    session.expect_exact("said-42")
    assert "open connections" in site.host.start("teleport-maintenance").console
    session.sendline("exit")
    session.expect(pexpect.EOF)
    wait_for(lambda: "nobody is connected" in site.host.start("teleport-maintenance").console, "it never reboots")

    def recorded() -> list[str]:
        listed = json.loads(sailor.can("tsh", "recordings", "ls", "--format=json"))
        return [item["sid"] for item in listed if item["user"] == sailor.login]

    wait_for(recorded, "the recording is not listed")
    wait_for(lambda: "said-42" in sailor.run("tsh", "play", "--format=text", *recorded()).stdout, "it is not played")


def test_ssh(sailor: Person) -> None:
    assert "Linux" in sailor.can("tsh", "ssh", f"root@{NAME}", "uname")

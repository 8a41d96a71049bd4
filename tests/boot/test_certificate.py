"""The certificate over its life: refusals and their pauses, renewal, the switch."""

import re
import time

import pytest

from tests.boot.conftest import Rig
from tests.boot.rig import Host, libfaketime

CERTIFICATE = "teleport-certificate"
LIMITED = (
    b'{"type": "urn:ietf:params:acme:error:rateLimited", "status": 429,'
    b' "detail": "too many certificates already issued"}'
)
REFUSED = "/var/lib/teleport/letsencrypt/refused"


def succeeds(host: Host) -> None:
    run = host.start(CERTIFICATE)
    assert run.code == 0, run
    assert host.wait_trusted()


def is_refused(host: Host, reason: str) -> None:
    before = host.served()
    run = host.start(CERTIFICATE)
    assert run.code, run
    assert re.search(f"refused: .*({reason})", run.console), run
    assert host.served() == before, "the pair in service stays"


def make_due(host: Host) -> None:
    """As if its last third had begun."""
    host.sh("sed -i '1i renew_before_expiry = 4000 days' /var/lib/teleport/letsencrypt/renewal/*.conf")


def test_the_pair_is_switched_without_a_restart(running: Host) -> None:
    pid = running.sh("cat /run/teleport.pid")
    assert not running.is_trusted()
    succeeds(running)
    assert running.sh("cat /run/teleport.pid") == pid
    assert running.sh("stat -c %a /var/lib/teleport/tls/current/key.pem") == "600"


def test_nothing_is_asked_before_it_is_due(running: Host) -> None:
    succeeds(running)
    running.world.clear()
    succeeds(running)
    assert running.orders() == 0


def test_a_renewal_that_is_due(running: Host) -> None:
    succeeds(running)
    before = running.served()
    make_due(running)
    running.world.clear()
    succeeds(running)
    assert running.orders() == 1
    deadline = time.monotonic() + 5
    while running.served() == before:
        assert time.monotonic() < deadline, "the old pair is still served"
        time.sleep(0.1)


def test_a_renewal_that_is_refused_keeps_the_trusted_pair(running: Host) -> None:
    succeeds(running)
    make_due(running)
    running.world.fault("acme POST /order-plz", "fail", status=429, body=LIMITED)
    is_refused(running, "too many certificates")
    assert running.is_trusted()


def test_a_full_quota_is_given_the_longest_pause(running: Host) -> None:
    running.configure(PAUSE_FIRST="300", PAUSE_MAX="21600")
    running.world.fault("acme POST /order-plz", "fail", status=429, body=LIMITED)
    is_refused(running, "rateLimited|too many")
    count, until, *_ = running.sh(f"cat {REFUSED}").split()
    assert count == "1"
    assert 21000 < int(until) - time.time() < 21700


def test_the_pauses_grow_and_end_at_the_longest(running: Host) -> None:
    running.world.fault("acme POST /order-plz", "fail", body=b"{}")
    pauses = []
    for _ in range(3):
        running.configure(PAUSE_FIRST="300", PAUSE_MAX="1000")
        is_refused(running, ".")
        count, until, reason = running.sh(f"cat {REFUSED}").split(maxsplit=2)
        pauses.append(round((int(until) - time.time()) / 10) * 10)
        running.sh(f"echo {count} 0 {reason!r} >{REFUSED}")
    assert pauses == [300, 600, 1000]


@pytest.mark.parametrize("new_start", ["again", "reboot"])
def test_nothing_is_asked_while_a_pause_lasts(running: Host, new_start: str) -> None:
    running.configure(PAUSE_MAX="21600")
    running.sh(f"echo 3 $(($(date +%s) + 600)) too many >{REFUSED}")
    if new_start == "reboot":
        running.reboot()
        running.resume()
    running.world.clear()
    process = running.begin(CERTIFICATE)
    assert process.stdout
    assert re.search("waiting [56].. s after attempt 3: too many", process.stdout.readline())
    time.sleep(0.5)
    running.kill(CERTIFICATE)
    process.communicate()
    assert running.world.requests == []
    # What an operator does who has mended the cause.
    running.sh(f"rm {REFUSED}")
    succeeds(running)


@pytest.mark.parametrize(
    "written", ["2 99999999999 the clock was wrong", "rubbish", ""], ids=["future", "rubbish", "empty"]
)
def test_a_pause_never_lasts_longer_than_the_longest(running: Host, written: str) -> None:
    running.configure(PAUSE_MAX="1")
    running.sh(f"echo '{written}' >{REFUSED}")
    succeeds(running)
    assert running.sh(f"ls {REFUSED}", check=False) == ""


def test_port_80_in_use(running: Host) -> None:
    holder = running.begin_python("import socket, time; s = socket.create_server(('', 80)); time.sleep(60)")
    running.wait_for_port(80)
    is_refused(running, "[Pp]ort 80|bind")
    holder.kill()
    running.sh("pkill -KILL -f create_server", check=False)
    succeeds(running)


def test_a_name_that_leads_elsewhere(running: Host) -> None:
    host = f"{running.config.hostname}."
    running.world.dns("add-a", host=host, addresses=["203.0.113.99"])
    try:
        is_refused(running, ".")
    finally:
        running.world.dns("clear-a", host=host)
    succeeds(running)


def test_a_certificate_that_the_host_does_not_trust_is_not_used(running: Host) -> None:
    # Let's Encrypt's staging: Teleport would not start with it.
    running.configure(SSL_CERT_FILE="/etc/ssl/certs/ca-certificates.crt")
    is_refused(running, "this host does not trust it")
    running.sh("systemctl restart teleport.service")
    running.configure(SSL_CERT_FILE="/etc/rig-trusted.pem")
    running.sh("systemctl restart teleport.service")
    running.world.clear()
    succeeds(running)
    assert running.orders() == 0, "the one that is there is taken"


def test_another_acme_server_means_one_new_certificate(running: Host) -> None:
    succeeds(running)
    running.sh(
        "sed -i 's|^server = .*|server = https://staging.example/dir|' /var/lib/teleport/letsencrypt/renewal/*.conf"
    )
    running.world.clear()
    succeeds(running)
    assert running.orders() == 1
    succeeds(running)
    assert running.orders() == 1


def test_a_switch_that_was_cut_short(running: Host) -> None:
    running.sh("cd /var/lib/teleport/tls; mkdir .new; echo half >.new/key.pem; ln -s .new .current")
    succeeds(running)
    assert len(running.sh("ls -A /var/lib/teleport/tls").split()) == 2


def test_certbot_is_not_there_yet(running: Host) -> None:
    running.sh(
        "mv /usr/local/sbin/certbot /usr/local/sbin/certbot.away; mount --bind /dev/null /usr/bin/certbot || true",
        check=False,
    )
    run = running.start(CERTIFICATE)
    assert run.code
    assert "certbot is not installed yet" in run.console, run
    assert running.sh(f"ls {REFUSED}", check=False) == "", "Let's Encrypt has refused nothing"


@pytest.mark.parametrize("hours", ["-1h", "+1h"])
def test_a_clock_that_is_wrong_by_an_hour(running: Host, hours: str) -> None:
    running.configure(LD_PRELOAD=libfaketime(), FAKETIME=hours)
    before = running.served()
    run = running.start(CERTIFICATE)
    # Behind, a new certificate is not valid yet; ahead, it is.
    assert bool(run.code) == (hours == "-1h"), run
    assert hours == "+1h" or running.served() == before
    running.settings.clear()
    running.configure()
    running.world.clear()
    succeeds(running)
    assert running.orders() == 0


def test_dns_01_through_the_own_zone(rig: Rig) -> None:
    with rig.world.inside():
        zone = rig.world.aws("route53").create_hosted_zone(Name="example.org", CallerReference=str(rig.number))
    zone_id = zone["HostedZone"]["Id"].rpartition("/")[2]
    host = rig.host(rig.volume(), dns_zone_id=zone_id)
    assert host.start("teleport-bootstrap").code == 0
    # Port 80 is closed in this mode: nothing may depend on it.
    rig.world.dns("add-a", host=f"{host.config.hostname}.", addresses=["203.0.113.99"])
    succeeds(host)
    with rig.world.inside():
        records = rig.world.aws("route53").list_resource_record_sets(HostedZoneId=zone_id)["ResourceRecordSets"]
    assert not [record for record in records if record["Type"] == "TXT"], "the challenge is taken away again"

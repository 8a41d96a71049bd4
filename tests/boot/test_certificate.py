"""The certificate: refusals and their pauses, renewal, and how Teleport gets it."""

import re
import socket
import time
from datetime import UTC, datetime

from tests.boot.rig import ACME_SERVER, BOOT, CERTIFICATE, REFUSED, Host, Rig, libfaketime
from tests.waiting import wait_for

WANTED = f"{ACME_SERVER},h0.example.org"  # what a `running` host asks for
RENEWAL = "/var/lib/teleport/letsencrypt/renewal/*.conf"


def refuse(host: Host, reason: str = ".") -> tuple[int, range]:
    """Runs the unit, which is refused. Returns when it will ask again, and the seconds around the refusal."""
    before, start = host.certificate(), int(time.time())
    host.fail(CERTIFICATE, f"refused: .*({reason})")
    assert host.certificate() == before, "the proxy keeps its certificate"
    return int(host.read(REFUSED).split()[1]), range(start, int(time.time()) + 1)


def succeed(host: Host, orders: int | None = None) -> None:
    """Runs the unit, which asks for this many certificates."""
    host.world.clear()
    host.succeed(CERTIFICATE)
    host.wait_trusted()
    assert orders in (None, host.world.orders())


def test_from_the_first_certificate_to_a_renewal(either: Host) -> None:
    pid = either.read("/run/teleport.pid")
    assert not either.is_trusted()
    succeed(either, orders=1)
    assert either.path("/var/lib/teleport/tls/current/key.pem").stat().st_mode & 0o777 == 0o600
    succeed(either, orders=0)
    # A certificate of another ACME server is replaced, once.
    either.sh(f"sed -i 's|^server = .*|server = https://staging.example/dir|' {RENEWAL}")
    succeed(either, orders=1)
    succeed(either, orders=0)
    either.make_renewal_due()
    either.world.limit_orders("retry after 2026-05-01 12:00:00 UTC")
    refuse(either, "too many certificates .* UTC")
    assert either.is_trusted()
    for newest in (False, True):
        before = either.certificate()
        if newest:
            either.use_newest_certbot()
        succeed(either, orders=1)
        wait_for(lambda before=before: either.certificate() != before, "the old certificate is still served")
    assert either.read("/run/teleport.pid") == pid, "Teleport was not restarted"


def test_a_rate_limit_is_waited_out_until_its_date(either: Host) -> None:
    either.configure(PAUSE_FIRST="30000", PAUSE_MAX="21600")
    date = int(time.time()) + 90_000
    dates = []
    # As Let's Encrypt writes it, and as it did until 2024.
    for form in ("retry after %Y-%m-%d %H:%M:%S UTC", "Retry after %Y-%m-%dT%H:%M:%SZ"):
        either.world.limit_orders(datetime.fromtimestamp(date, UTC).strftime(form))
        until, _ = refuse(either)
        assert date <= until <= date + 30_000
        process = either.begin(CERTIFICATE)
        assert process.stdout
        waiting = re.search(r"waiting (\d+) s after attempt 1: .*too many certificates", process.stdout.readline())
        either.kill(CERTIFICATE)
        process.communicate()
        assert waiting
        assert int(waiting[1]) > 21_600, "all of that time, not only the longest pause between other failures"
        either.path(REFUSED).unlink()
        dates.append(until)
    assert dates[0] != dates[1], "not at the second that everybody else reads"


def test_a_shared_quota_may_have_room_a_second_later(running: Host) -> None:
    running.configure(PAUSE_FIRST="300", PAUSE_MAX="21600")
    running.write(REFUSED, f"5 0 {WANTED} too many\n")
    running.world.limit_orders(f"retry after {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
    until, refused = refuse(running)
    assert refused[0] <= until <= refused[-1] + 300, "not the pause of a sixth failure"


def test_the_pauses_after_other_failures(running: Host) -> None:
    running.configure(PAUSE_FIRST="300", PAUSE_MAX="1000")
    running.world.fault("acme POST /order-plz", "fail", body=b"{}")
    for pause in (300, 600, 1000):
        until, refused = refuse(running)
        assert until - pause in refused
        running.sh(f"sed -i 's/ [0-9]* / 0 /' {REFUSED}")
    # The refusals of another name or server do not count, so this is a first failure.
    for other in (f"https://127.0.0.1/dir,{WANTED.split(',')[1]}", f"{ACME_SERVER},a.nip.io"):
        running.write(REFUSED, f"3 {int(time.time()) + 6000} {other} too many\n")
        until, refused = refuse(running)
        assert until - 300 in refused, other
    # A date that cannot be right makes it a failure like others.
    for date in ("2020-01-01 00:00:00", "2099-01-01 00:00:00", "2026-99-99 00:00:00", "a while"):
        running.path(REFUSED).unlink()
        running.world.limit_orders(f"retry after {date}")
        until, refused = refuse(running)
        assert until - 300 in refused, date


def test_a_pause_lasts_over_a_reboot_until_somebody_removes_the_file(running: Host) -> None:
    running.configure(PAUSE_MAX="21600")
    running.write(REFUSED, f"3 {int(time.time()) + 6000} {WANTED} too many\n")
    running.reboot()
    running.resume()
    running.world.clear()
    process = running.begin(CERTIFICATE)
    assert process.stdout
    assert re.search("waiting [56]... s after attempt 3: too many", process.stdout.readline())
    wait_for(lambda: running.sh("pgrep -x sleep", check=False), "nothing waits")
    assert running.world.requests == []
    running.path(REFUSED).unlink()
    console, journal = process.communicate(timeout=120)
    assert process.returncode == 0, console + journal
    running.wait_trusted()


def test_a_pause_is_never_longer_than_the_longest(running: Host) -> None:
    running.configure(PAUSE_MAX="1", LIMIT_MAX="1")
    wrong_clock = f"2 99999999999 {WANTED} the clock was wrong\n"
    for written in (wrong_clock, f"2 99999999999 {WANTED} retry after 2026-05-01 12:00:00 UTC\n", "rubbish\n", "\n"):
        running.write(REFUSED, written)
        succeed(running)
        assert not running.path(REFUSED).exists()


def test_a_challenge_that_fails(either: Host) -> None:
    with socket.create_server(("", 80)):
        refuse(either, "[Pp]ort 80|bind")
    host = f"{either.config.hostname}."
    either.world.set_dns("add-a", host=host, addresses=["203.0.113.99"])
    try:
        refuse(either, "203.0.113.99")
    finally:
        either.world.set_dns("clear-a", host=host)
    succeed(either)


def test_a_certificate_that_the_host_does_not_trust_is_not_used(running: Host) -> None:
    # Like a certificate of Let's Encrypt's staging: Teleport does not start with it.
    running.configure(SSL_CERT_FILE="/etc/ssl/certs/ca-certificates.crt")
    refuse(running, "this host does not trust it")
    running.sh("systemctl restart teleport.service")
    running.configure(SSL_CERT_FILE="/etc/rig-trusted.pem")
    running.sh("systemctl restart teleport.service")
    succeed(running, orders=0)


def test_certbot_is_not_there_yet(running: Host) -> None:
    running.sh("rm /usr/local/sbin/certbot; mount --bind /dev/null /usr/bin/certbot || true")
    running.fail(CERTIFICATE, "certbot is not installed yet")
    assert not running.path(REFUSED).exists(), "Let's Encrypt has refused nothing"


def test_a_clock_that_is_wrong_by_an_hour(running: Host) -> None:
    running.configure(LD_PRELOAD=libfaketime(), FAKETIME="-1h")
    refuse(running, "not yet valid")
    running.configure(FAKETIME="+1h")
    succeed(running, orders=0)
    running.repair()
    succeed(running, orders=0)


def test_dns_01_through_the_own_zone(rig: Rig, certbot: str) -> None:
    route53 = rig.world.aws("route53")
    zone = route53.create_hosted_zone(Name="example.org", CallerReference=str(rig.number))
    zone_id = zone["HostedZone"]["Id"].rpartition("/")[2]
    host = rig.host(rig.volume(), dns_zone_id=zone_id)
    host.succeed(BOOT)
    if certbot == "newest":
        host.use_newest_certbot()
    # Port 80 is closed in this mode, so nothing may depend on it.
    rig.world.set_dns("add-a", host=f"{host.config.hostname}.", addresses=["203.0.113.99"])
    succeed(host)
    records = route53.list_resource_record_sets(HostedZoneId=zone_id)["ResourceRecordSets"]
    assert not [record for record in records if record["Type"] == "TXT"], "the challenge is taken away again"

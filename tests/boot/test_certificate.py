"""The certificate over its life: refusals and their pauses, renewal, the switch."""

import json
import re
import time
from datetime import UTC, datetime

import pytest

from tests.boot.conftest import Rig
from tests.boot.rig import ACME_SERVER, Host, libfaketime, tool, wait_for

CERTIFICATE = "teleport-certificate"
REFUSED = "/var/lib/teleport/letsencrypt/refused"
WANTED = f"{ACME_SERVER},h0.example.org"  # what a `running` host asks for


@pytest.fixture(params=["2.6.0", "newest"])
def either(request: pytest.FixtureRequest, running: Host) -> Host:
    """A running host, with the certbot of Amazon Linux 2023 and with the newest."""
    if request.param == "newest":
        install_newest(running)
    return running


def install_newest(host: Host) -> None:
    host.sh(f"ln -sfn {tool('certbot')} /usr/lib/rig/certbot")


def limited(host: Host, text: str) -> None:
    """The server refuses an order as Let's Encrypt does, with ``text`` for the date that it gives."""
    detail = (
        f'too many certificates (250000) already issued for "nip.io" in the last 168h0m0s, {text}: '
        "see https://letsencrypt.org/docs/rate-limits/#new-certificates-per-registered-domain"
    )
    problem = {"type": "urn:ietf:params:acme:error:rateLimited", "status": 429, "detail": detail}
    host.world.fault("acme POST /order-plz", "fail", status=429, body=json.dumps(problem).encode())


def refused_until(host: Host) -> tuple[int, range]:
    """When the host will ask again, and the seconds in one of which it was refused."""
    before = int(time.time())
    is_refused(host, ".")
    return int(host.sh(f"cut -d' ' -f2 {REFUSED}")), range(before, int(time.time()) + 1)


def waits(host: Host) -> None:
    """Until the host's script has nothing left to do but to wait."""
    wait_for(lambda: host.sh("pgrep -x sleep", check=False), "nothing waits")


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


def test_the_pair_is_switched_without_a_restart(either: Host) -> None:
    pid = either.sh("cat /run/teleport.pid")
    assert not either.is_trusted()
    succeeds(either)
    assert either.sh("cat /run/teleport.pid") == pid
    assert either.sh("stat -c %a /var/lib/teleport/tls/current/key.pem") == "600"


def test_nothing_is_asked_before_it_is_due(either: Host) -> None:
    succeeds(either)
    either.world.clear()
    succeeds(either)
    assert either.orders() == 0


@pytest.mark.parametrize("upgraded", [False, True], ids=["", "after an upgrade of certbot"])
def test_a_renewal_that_is_due(either: Host, upgraded: bool) -> None:
    succeeds(either)
    before = either.served()
    make_due(either)
    either.world.clear()
    if upgraded:
        install_newest(either)
    succeeds(either)
    assert either.orders() == 1
    wait_for(lambda: either.served() != before, "the old pair is still served")


def test_a_renewal_that_is_refused_keeps_the_trusted_pair(either: Host) -> None:
    succeeds(either)
    make_due(either)
    limited(either, "retry after 2026-05-01 12:00:00 UTC")
    is_refused(either, "too many certificates .* UTC")
    assert either.is_trusted()


# As Let's Encrypt writes it, and as it did until 2024.
@pytest.mark.parametrize("form", ["retry after %Y-%m-%d %H:%M:%S UTC", "Retry after %Y-%m-%dT%H:%M:%SZ"])
def test_a_rate_limit_is_waited_out_until_its_date(either: Host, form: str) -> None:
    either.configure(PAUSE_FIRST="30000", PAUSE_MAX="21600")
    date = int(time.time()) + 90_000
    limited(either, datetime.fromtimestamp(date, UTC).strftime(form))
    until, _ = refused_until(either)
    assert date <= until <= date + 30_000
    process = either.begin(CERTIFICATE)
    assert process.stdout
    said = re.search(r"waiting (\d+) s after attempt 1: .*too many certificates", process.stdout.readline())
    either.kill(CERTIFICATE)
    process.communicate()
    assert said
    assert int(said[1]) > 21_600, "for all of that time, not for the longest pause between other failures"
    # Others have read the same date.
    either.sh(f"rm {REFUSED}")
    assert refused_until(either)[0] != until


def test_a_shared_quota_may_have_room_a_second_later(running: Host) -> None:
    running.configure(PAUSE_FIRST="300", PAUSE_MAX="21600")
    running.sh(f"echo '5 0 {WANTED} too many' >{REFUSED}")
    limited(running, f"retry after {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
    until, refused = refused_until(running)
    assert refused[0] <= until <= refused[-1] + 300, "not the pause of a sixth failure"


@pytest.mark.parametrize("date", ["2020-01-01 00:00:00", "2099-01-01 00:00:00", "2026-99-99 00:00:00", "a while"])
def test_a_date_that_cannot_be_meant_is_a_failure_like_others(running: Host, date: str) -> None:
    running.configure(PAUSE_FIRST="300", PAUSE_MAX="21600")
    limited(running, f"retry after {date}")
    until, refused = refused_until(running)
    assert until - 300 in refused


def test_the_pauses_grow_and_end_at_the_longest(running: Host) -> None:
    running.world.fault("acme POST /order-plz", "fail", body=b"{}")
    running.configure(PAUSE_FIRST="300", PAUSE_MAX="1000")
    for pause in (300, 600, 1000):
        until, refused = refused_until(running)
        assert until - pause in refused
        running.sh(f"sed -i 's/ [0-9]* / 0 /' {REFUSED}")


@pytest.mark.parametrize("new_start", ["again", "reboot"])
def test_nothing_is_asked_while_a_pause_lasts(running: Host, new_start: str) -> None:
    running.configure(PAUSE_MAX="21600")
    running.sh(f"echo 3 $(($(date +%s) + 6000)) {WANTED} too many >{REFUSED}")
    if new_start == "reboot":
        running.reboot()
        running.resume()
    running.world.clear()
    process = running.begin(CERTIFICATE)
    assert process.stdout
    assert re.search("waiting [56]... s after attempt 3: too many", process.stdout.readline())
    waits(running)
    assert running.world.requests == []
    # What an operator does who has mended the cause.
    running.sh(f"rm {REFUSED}")
    console, journal = process.communicate(timeout=120)
    assert process.returncode == 0, console + journal
    assert running.wait_trusted()


@pytest.mark.parametrize("other", [f"https://127.0.0.1/dir,{WANTED.split(',')[1]}", f"{ACME_SERVER},a.nip.io"])
def test_what_another_name_or_server_was_refused_does_not_count(running: Host, other: str) -> None:
    running.configure(PAUSE_FIRST="300", PAUSE_MAX="21600")
    running.sh(f"echo 3 $(($(date +%s) + 6000)) {other} too many >{REFUSED}")
    running.world.fault("acme POST /order-plz", "fail", body=b"{}")
    until, refused = refused_until(running)
    assert until - 300 in refused, "the first failure of this one"


@pytest.mark.parametrize(
    "written",
    [
        f"2 99999999999 {WANTED} the clock was wrong",
        f"2 99999999999 {WANTED} retry after 2026-05-01 12:00:00 UTC",
        "rubbish",
        "",
    ],
    ids=["future", "future limit", "rubbish", "empty"],
)
def test_a_pause_never_lasts_longer_than_the_longest(running: Host, written: str) -> None:
    running.configure(PAUSE_MAX="1", LIMIT_MAX="1")
    running.sh(f"echo '{written}' >{REFUSED}")
    succeeds(running)
    assert running.sh(f"ls {REFUSED}", check=False) == ""


def test_port_80_in_use(either: Host) -> None:
    with either.port_in_use(80):
        is_refused(either, "[Pp]ort 80|bind")
    succeeds(either)


def test_a_name_that_leads_elsewhere(either: Host) -> None:
    host = f"{either.config.hostname}."
    either.world.dns("add-a", host=host, addresses=["203.0.113.99"])
    try:
        is_refused(either, "203.0.113.99")
    finally:
        either.world.dns("clear-a", host=host)
    succeeds(either)


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


def test_another_acme_server_means_one_new_certificate(either: Host) -> None:
    succeeds(either)
    either.sh(
        "sed -i 's|^server = .*|server = https://staging.example/dir|' /var/lib/teleport/letsencrypt/renewal/*.conf"
    )
    either.world.clear()
    succeeds(either)
    assert either.orders() == 1
    succeeds(either)
    assert either.orders() == 1


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


@pytest.mark.parametrize("certbot", ["2.6.0", "newest"])
def test_dns_01_through_the_own_zone(rig: Rig, certbot: str) -> None:
    with rig.world.inside():
        zone = rig.world.aws("route53").create_hosted_zone(Name="example.org", CallerReference=str(rig.number))
    zone_id = zone["HostedZone"]["Id"].rpartition("/")[2]
    host = rig.host(rig.volume(), dns_zone_id=zone_id)
    assert host.start("teleport-bootstrap").code == 0
    if certbot == "newest":
        install_newest(host)
    # Port 80 is closed in this mode: nothing may depend on it.
    rig.world.dns("add-a", host=f"{host.config.hostname}.", addresses=["203.0.113.99"])
    succeeds(host)
    with rig.world.inside():
        records = rig.world.aws("route53").list_resource_record_sets(HostedZoneId=zone_id)["ResourceRecordSets"]
    assert not [record for record in records if record["Type"] == "TXT"], "the challenge is taken away again"

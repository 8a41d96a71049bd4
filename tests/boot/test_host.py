"""The host over its life: disks, reboots, replacement and upgrades."""

import contextlib
import hashlib
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.boot.conftest import Rig
from tests.boot.rig import NEWER, VERSION, Host, Volume, libfaketime, wait_for

BOOT = "teleport-bootstrap"
# A pair for another name, in /tmp.
MAKE_OTHER = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=other "
    "-addext subjectAltName=DNS:other -keyout /tmp/key.pem -out /tmp/cert.pem 2>/dev/null"
)


def boots(host: Host) -> None:
    run = host.start(BOOT)
    assert run.code == 0, run
    assert host.ping()


def refuses(host: Host, reason: str) -> None:
    run = host.start(BOOT)
    assert run.code, run
    assert reason in run.console, run


def contents(volume: Volume) -> str:
    return hashlib.sha256(volume.image.read_bytes()).hexdigest()


def test_a_second_boot_changes_nothing_and_takes_no_new_certificate(running: Host) -> None:
    assert running.start("teleport-certificate").code == 0
    assert running.wait_trusted()
    boots(running)
    before, certificate = running.data(), running.served()
    running.world.clear()
    running.reboot()
    boots(running)
    assert running.start("teleport-certificate").code == 0
    assert running.data() == before
    assert running.served() == certificate
    assert running.orders() == 0
    assert not [request for request in running.world.requests if request.startswith("cdn")]


def test_after_a_reboot_the_proxy_does_not_wait_for_the_network(running: Host) -> None:
    before = running.ping()
    running.reboot()
    running.world.fault("imds", "fail")
    running.configure(ADDRESS_WAIT="600")
    process = running.begin(BOOT)
    wait_for(lambda: running.ping() == before, "Teleport is not up")
    assert process.poll() is None, "the address is still waited for"
    running.kill(BOOT)
    process.communicate()
    running.configure(ADDRESS_WAIT="1")
    refuses(running, "step address: failed")
    assert running.ping() == before


@pytest.mark.parametrize("line", ["step volume: mounted", "step pair:", "step address:", "step teleport:"])
def test_a_power_cut_in_the_first_boot(bare: Host, line: str) -> None:
    process = bare.begin(BOOT)
    assert process.stdout
    assert any(line in printed for printed in process.stdout)
    bare.power_off()
    process.communicate()
    bare.power_on()
    boots(bare)


def test_an_unknown_disk_is_left_as_it_is(rig: Rig) -> None:
    volume = rig.volume()
    with volume.image.open("r+b") as image:
        image.seek(4096)
        image.write(b"somebody's data")
    before = contents(volume)
    refuses(rig.host(volume), "has data but no filesystem that is known here; it is left as it is")
    assert contents(volume) == before


def test_another_filesystem_is_not_overwritten(rig: Rig) -> None:
    volume = rig.volume()
    subprocess.run(["mkfs.ext4", "-q", volume.device], check=True)
    host = rig.host(volume)
    refuses(host, "step volume: failed")
    assert host.sh("blkid -p -o value -s TYPE /dev/disk/by-id/*") == "ext4"


def test_a_volume_that_is_attached_late(rig: Rig) -> None:
    host = rig.host()
    process = host.begin(BOOT)
    wait_for(lambda: host.sh("pgrep -x sleep", check=False), "the volume is not waited for")
    host.attach(rig.volume())
    console, journal = process.communicate(timeout=180)
    assert process.returncode == 0, console + journal


def test_without_the_volume_teleport_makes_no_new_authority(running: Host) -> None:
    running.volume = None
    running.reboot()
    running.configure(VOLUME_WAIT="1")
    refuses(running, "step volume: failed: volume vol-0123456789abcdef0 is not attached")
    assert running.sh("ls /var/lib/teleport") == "", "nothing is written below the mount point"
    # Not even by hand, and with all that Teleport itself would want.
    running.sh(f"{MAKE_OTHER}; mkdir -p /var/lib/teleport/tls/current; cp /tmp/*.pem /var/lib/teleport/tls/current")
    with pytest.raises(AssertionError, match="is not a mount point"):
        running.sh("systemctl start teleport.service")
    assert running.ping() is None
    assert running.sh("ls /var/lib/teleport") == "tls"


def test_a_format_that_was_cut_short_is_done_again(bare: Host) -> None:
    bare.spoil("mkfs.xfs", "half", times=1)
    bare.configure(DISK_TIME="3")
    refuses(bare, "step volume: failed: mkfs.xfs")
    bare.repair()
    bare.power_off()
    bare.power_on()
    boots(bare)
    assert bare.sh("ls /var/lib/teleport-eks") == "", "the mark that allows formatting is gone"


def test_a_restored_snapshot_beside_its_original_is_not_mixed_up(rig: Rig, running: Host) -> None:
    assert running.volume
    running.sh("systemctl stop teleport.service; umount /var/lib/teleport")
    twin = rig.volume(running.volume.image)
    # udev's link by UUID can only lead to one of the two: to the wrong one.
    running.sh(
        f"ln -sfn {twin.device} /dev/disk/by-id/twin; ln -sf /bin/true /usr/local/sbin/udevadm; "
        f"rm -f /dev/disk/by-uuid/*; ln -s {twin.device} /dev/disk/by-uuid/$(blkid -p -o value -s UUID {twin.device})"
    )
    refuses(running, "is on another volume too")
    assert running.ping() is None


def test_the_filesystem_grows_with_the_volume(running: Host) -> None:
    size = "df -k --output=size /var/lib/teleport | tail -n1"
    before = int(running.sh(size))
    assert running.volume
    running.volume.grow(500 << 20)
    boots(running)
    assert int(running.sh(size)) > before + 100_000


def test_a_full_data_volume(running: Host) -> None:
    before = running.ping(), running.served()
    running.sh("fallocate -l 1G /var/lib/teleport/full || cat /dev/zero >/var/lib/teleport/full || true", check=False)
    run = running.start("teleport-certificate")
    assert run.code, run
    assert "step certificate: " in run.console
    assert (running.ping(), running.served()) == before
    running.sh("rm /var/lib/teleport/full")
    boots(running)
    assert running.start("teleport-certificate").code == 0
    assert running.wait_trusted()


def test_a_full_root_disk_leaves_the_running_version(running: Host) -> None:
    running.changed_config(teleport_version=NEWER)
    running.sh("mkdir -p /var/cache/teleport-eks; mount -t tmpfs -o size=64k small /var/cache/teleport-eks")
    refuses(running, "step teleport: failed: download of")
    ping = running.ping()
    assert ping
    assert ping["server_version"] == VERSION
    running.sh("umount /var/cache/teleport-eks")
    boots(running)


def test_a_new_instance_with_the_same_volume_is_the_same_proxy(rig: Rig, running: Host) -> None:
    assert running.start("teleport-certificate").code == 0
    assert running.wait_trusted()
    before, certificate = running.ping(), running.served()
    running.power_off()
    running.world.clear()
    other = Host(running.world, f"{running.name}-other", running.config, running.volume)
    rig.hosts.append(other)
    other.power_on()
    other.first_boot()
    boots(other)
    assert other.start("teleport-certificate").code == 0
    assert other.ping() == before
    assert other.served() == certificate
    assert other.orders() == 0


def test_an_upgrade_in_place(running: Host) -> None:
    before = running.ping()
    assert before
    running.changed_config(teleport_version=NEWER)
    boots(running)
    assert running.ping() == {**before, "server_version": NEWER}
    assert running.sh("ls /opt/teleport").split() == [VERSION, NEWER, "current"], "the one before is kept"
    assert running.sh("ls /var/cache/teleport-eks") == ""


@pytest.mark.parametrize(
    "fault", ["no download", "other digest", "no archive", "other version", "refused configuration"]
)
def test_a_failed_upgrade_leaves_the_running_version(running: Host, fault: str) -> None:
    before = running.ping()
    world = running.world
    good = dict(world.downloads)
    version = NEWER
    running.changed_config(teleport_version=version)
    if fault == "no download":
        world.fault(f"cdn GET .*{version}.*gz$", "fail", status=404)
    elif fault == "other digest":
        running.changed_config(teleport_sha256="0" * 64)
    elif fault == "no archive":
        world.publish(version, b"this is not an archive")
    elif fault == "other version":
        world.publish(version, world.downloads[f"/teleport-v{VERSION}-linux-amd64-bin.tar.gz"])
    else:
        running.sh("sed -i 's/^  data_dir:/  new_key: 1\\n&/' /etc/teleport.yaml")
    refuses(running, "step teleport: failed")
    assert running.ping() == before
    assert running.sh("readlink /opt/teleport/current") == VERSION
    world.downloads = good
    running.repair()
    running.changed_config(teleport_sha256=None)
    boots(running)
    ping = running.ping()
    assert ping
    assert ping["server_version"] == version


def test_a_broken_download_goes_on_where_it_stopped(bare: Host) -> None:
    fault = bare.world.fault("cdn GET .*gz$", "cut", times=1)
    bare.configure(STALL_TIME="3")
    refuses(bare, "step teleport: failed: download of")
    assert fault.reached.is_set()
    bare.repair()
    boots(bare)
    assert [request for request in bare.world.requests if "bytes=" in request and "bytes=0-" not in request]


@pytest.mark.parametrize("half", ["longer than the file", "not continued"])
def test_a_half_that_is_of_no_use_is_dropped(bare: Host, half: str) -> None:
    size = 900_000 if half == "longer than the file" else 1000
    archive = f"/var/cache/teleport-eks/teleport-v{VERSION}-linux-amd64-bin.tar.gz"
    bare.sh(f"mkdir -p /var/cache/teleport-eks; head -c {size} /dev/urandom >{archive}")
    if half == "not continued":
        bare.world.fault("cdn GET .*gz bytes", "rubbish", times=1)  # answers the wish for a part with 200
    refuses(bare, "step teleport: failed")
    boots(bare)


def test_a_pinned_digest_is_the_one_that_counts(rig: Rig) -> None:
    content = rig.world.downloads[f"/teleport-v{VERSION}-linux-amd64-bin.tar.gz"]
    host = rig.host(rig.volume(), teleport_sha256="0" * 64)
    refuses(host, "nothing was unpacked")
    assert host.sh("ls /opt/teleport") == ""
    host.changed_config(teleport_sha256=hashlib.sha256(content).hexdigest())
    boots(host)
    assert not [request for request in rig.world.requests if "sha256" in request]


# Signed by an authority that the host does not trust, which is also how an expired one looks.
MAKE_FOREIGN = (
    f"{MAKE_OTHER}; cd /tmp; printf subjectAltName=DNS:h0.example.org >e; "
    "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=x -keyout k.pem -out r.pem; "
    "openssl x509 -req -in r.pem -CA cert.pem -CAkey key.pem -days 1 -extfile e -out c.pem; "
    "cd /var/lib/teleport/tls/current; cp /tmp/k.pem key.pem; cp /tmp/c.pem cert.pem"
)


@pytest.mark.parametrize(
    "damage",
    [
        "rm -r tls/current/",
        "ln -sfn nowhere tls/current",
        ": >tls/current/cert.pem",
        "rm -r tls",
        "mkdir tls/.new; cp tls/current/key.pem tls/.new/; ln -s .new tls/.current; rm tls/current",
        f"{MAKE_OTHER}; cp /tmp/key.pem tls/current/key.pem",
        f"{MAKE_OTHER}; cp /tmp/*.pem tls/current/",
        MAKE_FOREIGN,
    ],
    ids=[
        "no directory",
        "link to nowhere",
        "empty",
        "nothing",
        "half written",
        "other key",
        "other name",
        "not trusted",
    ],
)
def test_a_pair_that_teleport_would_not_start_with_is_replaced(running: Host, damage: str) -> None:
    running.sh("systemctl stop teleport.service")
    running.sh(f"cd /var/lib/teleport; {damage}", check=False)
    boots(running)
    left = running.sh("ls -A /var/lib/teleport/tls").split()
    assert len(left) == 2, "nothing half done is left over"
    assert "current" in left


def test_a_new_name_gets_a_pair_of_its_own(running: Host) -> None:
    running.changed_config(hostname="other.example.org")
    running.sh("systemctl stop teleport.service")
    boots(running)
    assert running.start("teleport-certificate").code == 0
    assert running.wait_trusted()


def test_teleport_that_does_not_answer_is_said(running: Host) -> None:
    running.configure(READY_WAIT="1")
    running.sh("systemctl stop teleport.service")
    with running.port_in_use(3080):
        refuses(running, "step start: failed: Teleport does not answer on 3080")
    running.repair()
    boots(running)


def test_a_cluster_whose_authority_is_no_certificate_stops_teleport(
    bare: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare.configure(READY_WAIT="3")
    with monkeypatch.context() as described:
        described.setattr(bare.world, "cluster", {"certificateAuthority": {"data": "bm9uZQ=="}})
        refuses(bare, "Teleport does not answer on 3080")
    bare.repair()
    boots(bare)


def test_the_units_that_follow_are_started_by_the_boot(bare: Host) -> None:
    boots(bare)
    assert set(bare.sh("cat /run/rig/timers").split()) == TIMERS
    assert bare.sh("cat /run/rig/queued").split() == ["teleport-certificate.service"]


TIMERS = {f"teleport-{name}.timer" for name in ("access", "certificate", "maintenance")}


def test_the_units_that_follow_do_not_wait_for_teleport_to_answer(bare: Host) -> None:
    bare.configure(READY_WAIT="1")
    with bare.port_in_use(3080):
        refuses(bare, "step start: failed: Teleport does not answer on 3080")
    assert set(bare.sh("cat /run/rig/timers").split()) == TIMERS


def test_people_on_the_host_do_not_get_the_instance_role(bare: Host) -> None:
    boots(bare)
    route = "ip route get 169.254.169.254 uid {} 2>&1"
    assert "Permission denied" in bare.sh(route.format(1000), check=False)
    assert "Permission denied" not in bare.sh(route.format(0), check=False)
    boots(bare)
    assert bare.sh("ip rule show").count("169.254.169.254") == 1


SUNDAY_4AM = "'@2026-11-22 04:00:00'"


@pytest.mark.parametrize(
    ("window", "hint", "connected", "rebooted"),
    [
        ("Sun 03:00", "Reboot is required", False, True),
        ("Sun 03:00", "Reboot is required", True, False),
        ("Sun 03:00", "Reboot should not be necessary.", False, False),
        ("Sun 03:00", "No such command: needs-restarting", False, False),
        ("Sat 22:00", "Reboot is required", False, False),
        ("Sun 05:00", "Reboot is required", False, False),
        ("none", "Reboot is required", False, False),
    ],
    ids=["due", "somebody is connected", "not needed", "not known", "window is over", "window is to come", "off"],
)
def test_a_reboot_for_updates(running: Host, window: str, hint: str, connected: bool, rebooted: bool) -> None:
    running.changed_config(maintenance_window=window)
    running.configure(LD_PRELOAD=libfaketime(), FAKETIME=SUNDAY_4AM, TZ="UTC")
    running.write("/run/rig/reboot-hint", hint)
    # A host that has been up for a day: no more than one reboot per window.
    running.write("/run/rig/uptime", "90000.00 1.00\n")
    running.sh("mount --bind /run/rig/uptime /proc/uptime")
    with client_of(running, 3080) if connected else contextlib.nullcontext():
        run = running.start("teleport-maintenance")
    assert run.code == 0, run
    assert (running.sh("ls /run/rig/reboot", check=False) != "") == rebooted, run
    assert ("open connections: 1" in run.console) == connected


@contextlib.contextmanager
def client_of(host: Host, port: int) -> Iterator[None]:
    """Somebody is connected to a port of the host meanwhile."""
    with host.world.inside():
        client = socket.create_connection(("127.0.0.1", port))
    with client:
        host.sh(f"until [[ $(ss -Htn state established '( sport = :{port} )') ]]; do sleep 0.05; done")
        yield


def test_a_host_that_has_just_rebooted_does_not_do_it_again(running: Host) -> None:
    running.changed_config(maintenance_window="Sun 03:00")
    running.configure(LD_PRELOAD=libfaketime(), FAKETIME=SUNDAY_4AM, TZ="UTC")
    running.write("/run/rig/reboot-hint", "Reboot is required")
    running.write("/run/rig/uptime", "300.00 1.00\n")
    running.sh("mount --bind /run/rig/uptime /proc/uptime")
    assert running.start("teleport-maintenance").code == 0
    assert running.sh("ls /run/rig/reboot", check=False) == ""

"""The host over its life: disks, reboots, replacement and upgrades."""

import contextlib
import hashlib
import socket
import subprocess

import pytest
import trustme

from tests.boot.rig import BOOT, CERTIFICATE, NEWER, VERSION, Host, Rig, Run, libfaketime, pem
from tests.waiting import wait_for

TIMERS = {f"teleport-{name}.timer" for name in ("access", "certificate", "maintenance")}
ARCHIVE = f"/teleport-v{VERSION}-linux-amd64-bin.tar.gz"
CACHE = "/var/cache/teleport-eks"
TLS = "/var/lib/teleport/tls"


def boot(host: Host) -> Run:
    run = host.succeed(BOOT)
    assert host.ping()
    return run


def get_certificate(host: Host) -> None:
    host.succeed(CERTIFICATE)
    host.wait_trusted()


def write_pair(host: Host, folder: str, pair: trustme.LeafCert) -> None:
    host.write(f"{folder}/key.pem", pem(pair.private_key_pem))
    host.write(f"{folder}/cert.pem", pem(pair.cert_chain_pems[0]))


# -- boots ---------------------------------------------------------------------------------------


def test_a_reboot_and_a_replacement_keep_the_proxy(rig: Rig, running: Host) -> None:
    get_certificate(running)
    boot(running)
    proxy, certificate, data = running.ping(), running.certificate(), running.data()
    running.world.clear()
    running.reboot()
    boot(running)
    running.succeed(CERTIFICATE)
    assert running.data() == data
    assert (running.ping(), running.certificate()) == (proxy, certificate)
    assert running.world.asked("^cdn") == []
    running.power_off()
    other = rig.add(running.config, running.volume)
    other.power_on()
    other.write_user_data()
    boot(other)
    other.succeed(CERTIFICATE)
    assert (other.ping(), other.certificate()) == (proxy, certificate)
    assert other.world.orders() == 0


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
    running.fail(BOOT, "step address: failed")
    assert running.ping() == before


def test_teleport_that_does_not_answer_is_reported_and_the_other_units_start(bare: Host) -> None:
    bare.configure(READY_WAIT="1")
    with socket.create_server(("", 3080)):
        bare.fail(BOOT, "step start: failed: Teleport does not answer on 3080")
    assert set(bare.read("/run/rig/timers").split()) == TIMERS
    bare.repair()
    boot(bare)
    assert set(bare.read("/run/rig/queued").split()) == {"teleport-certificate.service"}


def test_the_certificate_is_asked_for_beside_the_download(bare: Host) -> None:
    download = bare.world.fault("cdn GET .*gz$", "hang", times=1)
    process = bare.begin(BOOT)
    assert download.reached.wait(60)
    wait_for(lambda: bare.read("/run/rig/queued"), "the certificate is not asked for")
    assert bare.read("/run/rig/queued").split() == ["teleport-certificate.service"]
    bare.kill(BOOT)
    process.communicate()


def test_teleport_starts_while_packages_are_installed(bare: Host) -> None:
    bare.break_command("dnf", "hang", times=1, text="install")
    process = bare.begin(BOOT)
    wait_for(bare.ping, "Teleport is not up")
    assert process.poll() is None, "the packages are still waited for"
    assert "teleport-certificate" not in bare.read("/run/rig/queued"), "certbot is one of them"
    bare.sh("pkill -x sleep")
    console, _ = process.communicate(timeout=60)
    assert "step packages: failed" in console
    assert "step end: failed: Teleport runs, but not all is done: packages" in console
    boot(bare)


def test_a_boot_that_fails_waits_for_dnf(bare: Host) -> None:
    bare.world.fault("cdn GET .*gz$", "fail")
    bare.configure(DNF_DELAY="3")
    bare.fail(BOOT, r"step packages: installed.*\n(.*\n)*.* attempt 1 ended here")
    bare.repair()
    boot(bare)


def test_another_kubeconfig_restarts_teleport_once(running: Host) -> None:
    pid = running.read("/run/teleport.pid")
    boot(running)
    assert running.read("/run/teleport.pid") == pid
    running.sh("echo '# of another cluster' >>/etc/teleport-eks/kubeconfig")
    boot(running)
    other = running.read("/run/teleport.pid")
    assert other != pid
    boot(running)
    assert running.read("/run/teleport.pid") == other


def test_people_on_the_host_do_not_get_the_instance_role(running: Host) -> None:
    running.sh("ip rule del to 169.254.169.254", check=False)  # all hosts have one network
    boot(running)
    route = "ip route get 169.254.169.254 uid {} 2>&1"
    assert "Permission denied" in running.sh(route.format(1000), check=False)
    assert "Permission denied" not in running.sh(route.format(0), check=False)
    boot(running)
    assert running.sh("ip rule show").count("169.254.169.254") == 1


# -- the volume ----------------------------------------------------------------------------------


def test_a_disk_that_holds_something_is_not_formatted(rig: Rig) -> None:
    volume = rig.volume()
    with volume.image.open("r+b") as image:
        image.seek(4096)
        image.write(b"somebody's data")
    before = hashlib.sha256(volume.image.read_bytes()).digest()
    host = rig.host(volume)
    host.fail(BOOT, "has data but no filesystem that is known here; it is left as it is")
    assert hashlib.sha256(volume.image.read_bytes()).digest() == before
    ext4 = rig.volume()
    subprocess.run(["mkfs.ext4", "-q", ext4.device], check=True)
    host.attach(ext4)
    host.fail(BOOT, "step volume: failed")
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
    running.fail(BOOT, "step volume: failed: volume vol-0123456789abcdef0 is not attached")
    assert running.sh("ls /var/lib/teleport") == "", "nothing is written below the mount point"
    # Teleport does not start by hand either, even with all files that it needs.
    write_pair(running, f"{TLS}/current", running.world.authority.issue_cert(running.config.hostname))
    with pytest.raises(AssertionError, match="is not a mount point"):
        running.sh("systemctl start teleport.service")
    assert running.ping() is None
    assert running.sh("ls /var/lib/teleport") == "tls"


def test_a_format_that_was_interrupted_is_done_again(bare: Host) -> None:
    bare.break_command("mkfs.xfs", "half", times=1)
    bare.configure(DISK_TIME="3")
    bare.fail(BOOT, "step volume: failed: mkfs.xfs")
    bare.repair()
    bare.reboot()
    boot(bare)
    assert bare.sh("ls /var/lib/teleport-eks") == "", "the mark that allows formatting is gone"


def test_a_restored_snapshot_beside_its_original_is_not_mixed_up(rig: Rig, running: Host) -> None:
    assert running.volume
    running.sh("systemctl stop teleport.service; umount /var/lib/teleport")
    twin = rig.volume(running.volume.image)
    # udev's link by UUID leads to one of the two volumes: here to the wrong one.
    running.sh(
        f"ln -sfn {twin.device} /dev/disk/by-id/twin; ln -sf /bin/true /usr/local/sbin/udevadm; "
        f"rm -f /dev/disk/by-uuid/*; ln -s {twin.device} /dev/disk/by-uuid/$(blkid -p -o value -s UUID {twin.device})"
    )
    running.fail(BOOT, "is on another volume too")
    assert running.ping() is None


def test_a_full_data_volume_and_a_larger_one(running: Host) -> None:
    before = running.ping(), running.certificate()
    running.sh("fallocate -l 1G /var/lib/teleport/full || cat /dev/zero >/var/lib/teleport/full || true", check=False)
    running.fail(CERTIFICATE, "step certificate: ")
    assert (running.ping(), running.certificate()) == before
    running.sh("rm /var/lib/teleport/full")
    size = "df -k --output=size /var/lib/teleport | tail -n1"
    small = int(running.sh(size))
    assert running.volume
    running.volume.grow(500 << 20)
    boot(running)
    assert int(running.sh(size)) > small + 100_000
    get_certificate(running)


# -- Teleport's releases -------------------------------------------------------------------------


def test_an_upgrade_that_fails_leaves_the_running_version_until_it_works(running: Host) -> None:
    before, world = running.ping(), running.world
    good = dict(world.downloads)
    refused = "sed -i 's/^  data_dir:/  new_key: 1\\n&/' /etc/teleport.yaml"
    cases = ("no download", "another digest", "no archive", "another version", "no space", "refused configuration")
    for case in cases:
        running.write_user_data(teleport_version=NEWER, teleport_sha256="0" * 64 if case == "another digest" else None)
        if case == "no download":
            world.fault(f"cdn GET .*{NEWER}.*gz$", "fail", status=404)
        elif case == "no archive":
            world.publish(NEWER, b"this is not an archive")
        elif case == "another version":
            world.publish(NEWER, good[ARCHIVE])
        elif case == "no space":
            running.sh(f"mount -t tmpfs -o size=64k small {CACHE}")
        elif case == "refused configuration":
            running.sh(refused)
        running.fail(BOOT, "step teleport: failed")
        assert running.ping() == before, case
        assert running.sh("readlink /opt/teleport/current") == VERSION
        if case == "no space":
            running.sh(f"umount {CACHE}")
        assert running.sh(f"ls -A {CACHE} /opt/teleport | grep -F -e .new -e .gz", check=False) == "", case
        world.downloads = dict(good)
        running.repair()
    world.clear()
    running.write_user_data(teleport_sha256=hashlib.sha256(good[ARCHIVE.replace(VERSION, NEWER)]).hexdigest())
    boot(running)
    assert world.asked("sha256") == [], "the pinned digest is used instead"
    assert running.ping() == {**(before or {}), "server_version": NEWER}
    assert running.sh("ls /opt/teleport").split() == [VERSION, NEWER, "current"], "the one before is kept"


def test_a_broken_download_continues_where_it_stopped(bare: Host) -> None:
    fault = bare.world.fault("cdn GET .*gz$", "cut", times=1)
    bare.configure(STALL_TIME="3")
    bare.fail(BOOT, "step teleport: failed: download of")
    assert fault.reached.is_set()
    bare.repair()
    boot(bare)
    assert bare.world.asked("bytes=[1-9]")


def test_a_useless_half_of_a_download_is_dropped(bare: Host) -> None:
    for size in (900_000, 1000):  # more than the whole file, and something else
        bare.sh(f"mkdir -p {CACHE}; head -c {size} /dev/urandom >{CACHE}{ARCHIVE}")
        if size == 1000:
            bare.world.fault("cdn GET .*gz bytes", "rubbish", times=1)  # a server that does not continue, with a 200
        bare.fail(BOOT, "step teleport: failed")
        assert bare.sh(f"ls {CACHE}") == ""
    boot(bare)


# -- the pair ------------------------------------------------------------------------------------


def test_a_pair_that_teleport_does_not_start_with_is_replaced(running: Host) -> None:
    name, authority = running.config.hostname, running.world.authority
    write_pair(running, "/tmp/other", authority.issue_cert("other.example.org"))  # noqa: S108  on the rig's host
    # Such as a certificate that has expired, or that Let's Encrypt's staging has issued.
    write_pair(running, "/tmp/untrusted", trustme.CA().issue_cert(name))  # noqa: S108
    for damage in (
        "rm -r tls/current/",
        "ln -sfn nowhere tls/current",
        ": >tls/current/cert.pem",
        "rm -r tls",
        "mkdir tls/.new; cp tls/current/key.pem tls/.new/; ln -s .new tls/.current; rm tls/current",
        "cp /tmp/other/key.pem tls/current/",
        "cp /tmp/other/* tls/current/",
        "cp /tmp/untrusted/* tls/current/",
    ):
        running.sh("systemctl stop teleport.service")
        running.sh(f"cd /var/lib/teleport; {damage}", check=False)
        assert "step pair: self-signed for now" in boot(running).console, damage
        left = running.sh(f"ls -A {TLS}").split()
        assert len(left) == 2, f"something is left over after {damage}"
        assert "current" in left
    running.write_user_data(hostname="other.example.org")
    running.sh("systemctl stop teleport.service")
    boot(running)
    get_certificate(running)


# -- the maintenance window ----------------------------------------------------------------------


def test_a_reboot_for_updates(running: Host) -> None:
    running.configure(LD_PRELOAD=libfaketime(), FAKETIME="'@2026-11-22 04:00:00'", TZ="UTC")  # a Sunday
    running.write("/run/rig/uptime", "")
    running.sh("mount --bind /run/rig/uptime /proc/uptime")
    needed, day = "Reboot is required", 86400
    for window, hint, uptime, connected, reboots in (
        ("Sun 03:00", needed, day, False, True),
        ("Sun 03:00", needed, day, True, False),
        ("Sun 03:00", needed, 300, False, False),  # one reboot in each window
        ("Sun 03:00", "Reboot should not be necessary.", day, False, False),
        ("Sun 03:00", "No such command: needs-restarting", day, False, False),
        ("Sat 22:00", needed, day, False, False),
        ("Sun 05:00", needed, day, False, False),
        ("none", needed, day, False, False),
    ):
        running.write_user_data(maintenance_window=window)
        running.write("/run/rig/reboot-hint", hint)
        running.write("/run/rig/uptime", f"{uptime}.00 1.00\n")
        running.path("/run/rig/reboot").unlink(missing_ok=True)
        with socket.create_connection(("127.0.0.1", 3080)) if connected else contextlib.nullcontext():
            is_seen = f"[[ $(ss -Htn state established '( sport = :3080 )' | wc -l) == {int(connected)} ]]"
            wait_for(lambda is_seen=is_seen: running.sh(f"{is_seen} && echo yes", check=False), "ss does not agree")
            run = running.succeed("teleport-maintenance")
        assert running.path("/run/rig/reboot").exists() == reboots, (window, hint, uptime, run)
        assert ("open connections: 1" in run.console) == connected

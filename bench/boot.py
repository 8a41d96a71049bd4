"""A boot in the boot rig: from the first unit until the proxy serves a trusted certificate.

The network is slow: the address is attached ``ADDRESS`` seconds after the first unit starts, dnf takes ``PACKAGES``
seconds, a release of ``SIZE`` bytes comes at ``RATE`` bytes per second, and each ACME request takes ``ROUND_TRIP``.

The path that nobody can avoid begins with the address. Then there are two, side by side:

- the release is downloaded and unpacked, and Teleport starts until it answers;
- the packages are installed, with certbot, and certbot gets a certificate.

The longer one counts. After each boot, the same host does only these things, with the same programs and the same slow
network: curl and tar beside certbot, then a start of Teleport. Not in this path: to check the release's digest, to read
the cluster's address, to prepare the volume, and to wait until Teleport looks for a new certificate.

``boot.at.STEP`` is when a step of the boot ended. If TELEPORT in the environment is the folder of a release, figures
that begin with ``boot.teleport`` are of that release. Its archive has teleport and tctl, from ``gzip -1``.
"""

import os
import shlex
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench.measure import Results, ratio
from sandbox.binaries import ServersMissingError
from tests.boot.rig import ACME_SERVER, BOOT, CERTIFICATE, VERSION, Host, Rig, World, missing
from tests.waiting import wait_for

SIZE, RATE, ROUND_TRIP = 180 << 20, 50e6, 0.3
ADDRESS, PACKAGES = 2, 5
TIMES = 3
CERTBOT = (
    "REQUESTS_CA_BUNDLE=/etc/rig-trusted.pem certbot certonly --quiet --non-interactive --agree-tos"
    " --email a@example.org --key-type ecdsa --standalone --config-dir /tmp/c --work-dir /tmp/c --logs-dir /tmp/c"
)


def measure(results: Results) -> None:
    try:
        if reason := missing():
            raise ServersMissingError(reason)
        with tempfile.TemporaryDirectory() as folder:
            world = World(Path(folder))
            try:
                world.delays, world.rate = {"acme": ROUND_TRIP}, RATE
                world.publish_stand_ins(VERSION, SIZE)
                _report(results, "boot", [_boot(world, Path(folder), turn, VERSION) for turn in range(TIMES)])
                if release := os.environ.get("TELEPORT"):
                    version = world.publish_release(Path(release), level=1)
                    _report(results, "boot.teleport", [_boot(world, Path(folder), TIMES, version)])
                else:
                    print("# boot.teleport is not measured, because TELEPORT is not the folder of a release")
            finally:
                world.close()
    except ServersMissingError as error:
        print(f"# boot is not measured: {error}")


def _report(results: Results, name: str, boots: list[tuple[dict[str, float], dict[str, float]]]) -> None:
    """``boots``: of each boot, when its steps ended, and how long the parts take that cannot be avoided."""
    walls = [at["served"] for at, _ in boots]
    for step in boots[0][0]:
        results.median(f"{name}.at.{step}", [at[step] for at, _ in boots], "s")
    for part in boots[0][1]:
        results.median(f"{name}.alone.{part}", [alone[part] for _, alone in boots], "s")
    paths = [ADDRESS + max(a["download"] + a["unpack"] + a["start"], PACKAGES + a["certificate"]) for _, a in boots]
    results.median(f"{name}.unavoidable", paths, "s")
    results.median(f"{name}.wall", walls, "s")
    results.add(f"{name}.wall-to-unavoidable", ratio(walls, paths), "ratio", most=1.15)
    waits = [at["served"] - at["certificate"] for at, _ in boots]
    results.median(f"{name}.certificate-there-to-served", waits, "s", most=10)


def _boot(world: World, folder: Path, number: int, version: str) -> tuple[dict[str, float], dict[str, float]]:
    rig = Rig(world, folder, number)
    try:
        host = rig.host(rig.volume(), teleport_version=version)
        host.write("/etc/hosts", f"127.0.0.1 localhost {host.config.hostname}\n")
        host.configure(DNF_DELAY=str(PACKAGES), REAL_TIMES="1")
        return _steps(host), _alone(host)
    finally:
        rig.close()


def _steps(host: Host) -> dict[str, float]:
    """Boots the host. Returns when each step has ended."""
    at: dict[str, float] = {}
    began = time.monotonic()

    def watch(process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            at[line.split()[2].rstrip(":")] = time.monotonic() - began  # "teleport-eks: step NAME: ..."

    def run(unit: str) -> threading.Thread:
        thread = threading.Thread(target=watch, args=[host.begin(unit)])
        thread.start()
        return thread

    address = host.world.fault("imds .*public-ipv4", "fail", status=404)
    threading.Timer(ADDRESS, setattr, (address, "times", 0)).start()
    threads = [run(BOOT)]
    wait_for(lambda: CERTIFICATE in host.read("/run/rig/queued"), "the certificate is not asked for")
    threads.append(run(CERTIFICATE))  # as systemd does at once
    host.wait_trusted()
    served = time.monotonic() - began
    for thread in threads:
        thread.join()
    return {**at, "served": served}


def _alone(host: Host) -> dict[str, float]:
    """How long the parts take that cannot be avoided."""
    took: dict[str, float] = {}

    def timed(part: str, run: Callable[[], object]) -> None:
        began = time.monotonic()
        run()
        took[part] = time.monotonic() - began

    config = host.config
    url = next(path for path in host.world.downloads if f"-v{config.settings.teleport_version}-" in path)
    order = f"{CERTBOT} --server {ACME_SERVER} --domain {shlex.quote(config.hostname)}"
    certificate = threading.Thread(target=timed, args=["certificate", lambda: host.sh(order)])
    certificate.start()
    timed("download", lambda: host.sh(f"mkdir /tmp/r && curl -fsSo /tmp/r.tgz {config.teleport_cdn}{url}"))
    timed("unpack", lambda: host.sh("tar -xzf /tmp/r.tgz -C /tmp/r teleport/teleport teleport/tctl"))
    certificate.join()
    host.sh("systemctl stop teleport.service")
    timed("start", lambda: (host.sh("systemctl start teleport.service"), host.wait_trusted()))
    return took

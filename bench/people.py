"""What people feel of the proxy, and what they cost it: the real Teleport on the boot rig, with the real API server.

It runs as root, with TELEPORT=folder of an unpacked release. The request is the one that `kubectl get pods` sends: with
a person's certificate through the proxy, and with an administrator's to the API server alone. Threads of this process
send it, over HTTP/1.1 connections that stay open, because 50 processes of kubectl would measure how kubectl starts.
"At once" means that each connection sends its next request as soon as it has the answer.

Client, proxy, API server and etcd share the cores of this machine. With many requests at once, latency is mostly the
time for which a request waits for a core. A host that has its cores for itself is quicker, and so is an API server that
runs elsewhere; a network adds the same time to each request. CPU seconds hardly depend on that. They are those of the
process of Teleport, which has all of its services. Its memory includes what Go has freed and not yet given back.
"""

import base64
import contextlib
import http.client
import json
import os
import select
import ssl
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pexpect
import psutil
import yaml

from bench.measure import Curve, Results, side_by_side
from tests.boot.rig import Host, missing
from tests.teleport.people import Person
from tests.teleport.stage import OBJECTS, Site

REQUESTS = {1: 200, 10: 300, 50: 500}  # by the number at once: how many in one turn
TURNS, COMMANDS = 5, 9
PODS = 30
SESSIONS = 10, 50
SECONDS = 10  # how long Teleport is watched
BUSY = "while sleep 0.1; do echo a line as of a log that somebody follows, of about eighty characters, or so; done"
GET = "/api/v1/namespaces/shop/pods?limit=500"
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
KUBECTL = "kubectl", "get", "pods", "-n", "shop"
# Server, its authority, and a person's certificate and key.
Access = tuple[str, str, Path, Path]


class Teleport:
    def __init__(self, host: Host) -> None:
        found = psutil.Process(host.pid).children(recursive=True)
        (self._process,) = [process for process in found if process.name() == "teleport"]

    def cpu(self, run: Callable[[], object]) -> float:
        """Its CPU seconds during ``run``."""
        before = self._process.cpu_times()
        run()
        after = self._process.cpu_times()
        return after.user + after.system - before.user - before.system

    @property
    def memory(self) -> float:
        return self._process.memory_info().rss / 2**20


def measure(results: Results) -> None:
    folder = Path(os.environ.get("TELEPORT", "")).absolute()
    lacking = [name for name in ("teleport", "tctl", "tsh") if not (folder / name).is_file()]
    if reason := f"TELEPORT=folder of a release, with {', '.join(lacking)}" if lacking else missing():
        print(f"# people is not measured, it needs: {reason}")
        return
    with tempfile.TemporaryDirectory() as scratch, contextlib.closing(Site(Path(scratch), folder)) as site:
        site.first_boot()
        site.up()
        pods = [{**OBJECTS[-1], "metadata": {"name": f"web-{n}", "namespace": "shop"}} for n in range(1, PODS)]
        site.admin("apply", "-f", "-", objects=[{"apiVersion": "v1", **pod} for pod in pods])
        teleport, ada = Teleport(site.host), site.person("ada", ("acme", "dev"))
        results.add("people.sign-in.cpu", teleport.cpu(ada.sign_in), "s")
        _commands(results, site, teleport, ada)
        proxy = _certificate(ada)
        _sessions(results, teleport, ada)
        pki, name = site.plane.directory / "pki", site.plane.kubeconfig.stem
        alone = site.plane.server, (pki / "ca.crt").read_text(), pki / f"{name}.crt", pki / f"{name}.key"
        _requests(results, teleport, alone, proxy)
        results.add("people.memory-at-the-end", teleport.memory, "MiB")


def _commands(results: Results, site: Site, teleport: Teleport, person: Person) -> None:
    """What a person waits for: kubectl starts, and for the proxy it starts tsh, which has the certificate."""
    site.laptop.write(f"{person.home}/alone", site.plane.kubeconfig.read_text())
    runs = [partial(_seconds, person, "--kubeconfig=alone"), partial(_seconds, person)]
    side_by_side(runs, 1)  # kubectl keeps what it learns of the API
    found: list[list[float]] = []
    spent = teleport.cpu(lambda: found.extend(side_by_side(runs, COMMANDS)))
    results.median("people.kubectl-get.alone", found[0], "s")
    results.median("people.kubectl-get.through-proxy", found[1], "s")
    results.add("people.1000-kubectl-gets.cpu", spent / COMMANDS * 1000, "s")


def _sessions(results: Results, teleport: Teleport, person: Person) -> None:
    """Shells with `kubectl exec`, which are recorded: nobody types, then each prints ten lines a second."""
    idle = teleport.cpu(lambda: time.sleep(SECONDS)) / SECONDS
    results.add("people.idle.cpu", idle * 1000, "ms/s")
    results.add("people.idle.memory", start := teleport.memory, "MiB")
    shells: list[pexpect.spawn] = []
    spent = 0.0
    for count in SESSIONS:
        more = range(count - len(shells))
        spent += teleport.cpu(lambda more=more: shells.extend(person.open_shell() for _ in more))
        results.add(f"people.{count}-sessions.memory", teleport.memory, "MiB")
    for state, line in ("idle", ""), ("busy", BUSY):
        for shell in shells:
            shell.sendline(line)
        watched = teleport.cpu(partial(_read, shells)) / SECONDS - idle
        results.add(f"people.{state}-session.cpu", watched / len(shells) * 1000, "ms/s")
    results.add("people.session.memory", (teleport.memory - start) / len(shells), "MiB")
    spent += teleport.cpu(lambda: _end(shells))
    results.add("people.session.start-and-end-cpu", spent / len(shells), "s")


def _read(shells: list[pexpect.spawn]) -> None:
    """Reads what the shells print, for some time. One that nobody reads would stop."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        for shell in select.select(shells, [], [], 0.1)[0]:
            shell.read_nonblocking(65536)


def _end(shells: list[pexpect.spawn]) -> None:
    for shell in shells:
        shell.close(force=True)
    time.sleep(SECONDS)  # the recordings are uploaded


def _requests(results: Results, teleport: Teleport, alone: Access, proxy: Access) -> None:
    points: dict[str, list[tuple[float, float]]] = {"API server alone": [], "through the proxy": []}
    for count, requests in REQUESTS.items():
        runs = [partial(_load, [_connection(*side) for _ in range(count)], requests) for side in (alone, proxy)]
        times: list[list[list[float]]] = []
        spent = teleport.cpu(lambda runs=runs, times=times: times.extend(side_by_side(runs, TURNS)))
        cuts = [statistics.quantiles([took for run in side for took in run], n=100) for side in times]
        for what, percent in ("median", 50), ("p99", 99):
            direct, through = (side[percent - 1] for side in cuts)
            results.add(f"people.{count}-at-once.{what}.alone", direct, "ms")
            results.add(f"people.{count}-at-once.{what}.through-proxy", through, "ms")
            results.add(f"people.{count}-at-once.{what}.added", through - direct, "ms")
        results.add(f"people.{count}-at-once.1000-requests.cpu", spent / (TURNS * requests) * 1000, "s")
        for line, side in zip(points.values(), cuts, strict=True):
            line.append((count, side[49]))
    results.curve(Curve("people", "Latency of a request, median", "requests at once", "ms", points))


def _seconds(person: Person, *more: str) -> float:
    began = time.monotonic()
    person.can("env", f"--chdir={person.home}", *KUBECTL, *more)
    return time.monotonic() - began


def _certificate(person: Person) -> Access:
    """What `tsh kube login` gives. It is in files from now on, so that kubectl no longer starts tsh."""
    config = yaml.safe_load(person.can("kubectl", "config", "view", "--raw"))
    plugin, cluster = config["users"][0]["user"]["exec"], config["clusters"][0]["cluster"]
    given = json.loads(person.can(plugin["command"], *plugin["args"]))["status"]
    certificate, key = f"{person.home}/certificate", f"{person.home}/key"
    person.laptop.write(certificate, given["clientCertificateData"])
    person.laptop.write(key, given["clientKeyData"], 0o600)
    flags = f"--client-certificate={certificate}", f"--client-key={key}"
    person.can("kubectl", "config", "set-credentials", "files", *flags)
    person.can("kubectl", "config", "set-context", "--current", "--user=files")
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    return cluster["server"], authority, person.laptop.path(certificate), person.laptop.path(key)


def _connection(server: str, authority: str, certificate: Path, key: Path) -> http.client.HTTPSConnection:
    """An open connection that was used once."""
    trust = ssl.create_default_context(cadata=authority)
    trust.load_cert_chain(certificate, key)
    trust.check_hostname = False  # the proxy's name is known to the laptop only
    connection = http.client.HTTPSConnection("127.0.0.1", urlsplit(server).port, context=trust)
    _get(connection)
    return connection


def _get(connection: http.client.HTTPSConnection) -> float:
    """How many milliseconds a request took."""
    began = time.monotonic()
    connection.request("GET", GET, headers=TABLE)
    answer = connection.getresponse()
    text = answer.read()
    took = time.monotonic() - began
    if answer.status != 200 or text.count(b'"web-') < PODS - 1:
        raise RuntimeError(f"{answer.status}: {text[:500]!r}")
    return took * 1000


def _load(connections: list[http.client.HTTPSConnection], requests: int) -> list[float]:
    def send(connection: http.client.HTTPSConnection) -> list[float]:
        return [_get(connection) for _ in range(requests // len(connections))]

    with ThreadPoolExecutor(len(connections)) as pool:
        return [took for each in pool.map(send, connections) for took in each]

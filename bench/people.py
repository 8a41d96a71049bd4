"""What people feel of the proxy, and what they cost it: the real Teleport on the boot rig, with the real API server.

It runs as root, with TELEPORT=folder of an unpacked release. The request is the one that `kubectl get pods` sends, with
a person's certificate through the proxy, and with an administrator's to the API server alone. It is sent by threads of
this process, over HTTP/1.1 connections that stay open, because 50 processes of kubectl would measure how kubectl
starts. "At once" means that each connection sends its next request when it has the answer.

Client, proxy, API server and etcd share this machine's cores. From some requests on, latency is the time that a request
waits for a core, and more of that with the proxy, because the client and the API server need the cores too. On a host
of its own the proxy is quicker. A network would add the same to each request. Not distorted are CPU seconds: those of
the process of Teleport, which is all of its services. Its memory is what it holds from the machine: Go gives that back
late.
"""

import base64
import contextlib
import http.client
import json
import os
import select
import socket
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
from tests.boot.rig import missing
from tests.teleport.people import Person
from tests.teleport.stage import OBJECTS, Site

REQUESTS = {1: 200, 10: 500, 50: 1000}  # by the number at once: how many in one turn
TURNS, COMMANDS = 5, 9
PODS = 30
SESSIONS = 10, 50
SECONDS = 10  # how long sessions are watched
BUSY = "while sleep 0.1; do echo a line as of a log that somebody follows, of about eighty characters, or so; done"
GET = "/api/v1/namespaces/shop/pods?limit=500"
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
KUBECTL = "kubectl", "get", "pods", "-n", "shop"


def measure(results: Results) -> None:
    folder = Path(os.environ.get("TELEPORT", "")).absolute()
    if not all((folder / name).is_file() for name in ("teleport", "tctl", "tsh")):
        print("# people is not measured: set TELEPORT=folder of a release, with teleport, tctl and tsh")
    elif reason := missing():
        print(f"# people is not measured: {reason}")
    else:
        with tempfile.TemporaryDirectory() as scratch, contextlib.closing(Site(Path(scratch), folder)) as site:
            site.first_boot()
            site.up()
            pods = [{**OBJECTS[-1], "metadata": {"name": f"web-{n}", "namespace": "shop"}} for n in range(1, PODS)]
            site.admin("apply", "-f", "-", objects=[{"apiVersion": "v1", **pod} for pod in pods])
            _measure(results, site)


def _measure(results: Results, site: Site) -> None:
    (teleport,) = [p for p in psutil.Process(site.host.pid).children(recursive=True) if p.name() == "teleport"]
    ada = site.person("ada", ("acme", "dev"))

    def cpu(run: Callable[[], object]) -> float:
        """Teleport's CPU seconds during ``run``."""
        before = teleport.cpu_times()
        run()
        after = teleport.cpu_times()
        return after.user + after.system - before.user - before.system

    def memory() -> float:
        return teleport.memory_info().rss / 2**20

    results.add("people.sign-in.cpu", cpu(ada.sign_in), "s")

    # What a person waits for: kubectl starts, and for the proxy it starts tsh, which has the certificate.
    site.laptop.write(f"{ada.home}/alone", site.plane.kubeconfig.read_text())
    sides = [partial(_seconds, ada, "--kubeconfig=alone"), partial(_seconds, ada)]
    found: list[list[float]] = []
    for side in sides:
        side()  # it keeps what it learns of the API
    spent = cpu(lambda: found.extend(side_by_side(sides, COMMANDS)))
    results.median("people.kubectl-get.alone", found[0], "s")
    results.median("people.kubectl-get.through-proxy", found[1], "s")
    results.add("people.1000-kubectl-gets.cpu", spent / COMMANDS * 1000, "s")

    idle = cpu(lambda: time.sleep(SECONDS)) / SECONDS
    results.add("people.idle.cpu", idle * 1000, "ms/s")
    results.add("people.idle.memory", start := memory(), "MiB")
    pki, name = site.plane.directory / "pki", site.plane.kubeconfig.stem
    alone = site.plane.server, (pki / "ca.crt").read_text(), pki / f"{name}.crt", pki / f"{name}.key"
    proxy = _certificate(ada)

    shells = []
    for count in SESSIONS:
        more = count - len(shells)
        spent = cpu(lambda more=more: shells.extend(ada.open_shell() for _ in range(more)))
        results.add(f"people.{count}-sessions.memory", memory(), "MiB")
    results.add("people.session.start-cpu", spent / more, "s")
    for state, line in ("idle", ""), ("busy", BUSY):
        for shell in shells:
            shell.sendline(line)
        spent = cpu(partial(_read, shells)) / SECONDS - idle
        results.add(f"people.{state}-session.cpu", spent / len(shells) * 1000, "ms/s")
    results.add("people.session.memory", (memory() - start) / len(shells), "MiB")
    for shell in shells:
        shell.close(force=True)

    points: dict[str, list[tuple[float, float]]] = {"through the proxy": [], "API server alone": []}
    for count, requests in REQUESTS.items():
        runs = [partial(_load, [_connection(*side) for _ in range(count)], requests) for side in (alone, proxy)]
        times: list[list[list[float]]] = []
        spent = cpu(lambda runs=runs, times=times: times.extend(side_by_side(runs, TURNS)))
        medians, p99s = zip(*map(_median_and_p99, times), strict=True)
        for what, (direct, through) in ("median", medians), ("p99", p99s):
            results.add(f"people.{count}-at-once.{what}.alone", direct, "ms")
            results.add(f"people.{count}-at-once.{what}.through-proxy", through, "ms")
            results.add(f"people.{count}-at-once.{what}.added", through - direct, "ms")
        results.add(f"people.{count}-at-once.1000-requests.cpu", spent / (TURNS * requests) * 1000, "s")
        for line, value in zip(points.values(), reversed(medians), strict=True):
            line.append((count, value))
    results.add("people.memory-at-the-end", memory(), "MiB")
    results.curve(Curve("people", "Latency of a request, median", "requests at once", "ms", points))


def _seconds(person: Person, *more: str) -> float:
    began = time.monotonic()
    person.can("env", f"--chdir={person.home}", *KUBECTL, *more)
    return time.monotonic() - began


def _certificate(person: Person) -> tuple[str, str, Path, Path]:
    """Server, authority, certificate and key of `tsh kube login`. Those are files now: kubectl no longer starts tsh."""
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
    where = urlsplit(server)
    trust = ssl.create_default_context(cadata=authority)
    trust.load_cert_chain(certificate, key)
    plain = socket.create_connection(("127.0.0.1", where.port or 443))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection = http.client.HTTPSConnection("127.0.0.1")
    connection.sock = trust.wrap_socket(plain, server_hostname=where.hostname)
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


def _median_and_p99(runs: list[list[float]]) -> tuple[float, float]:
    cuts = statistics.quantiles([took for run in runs for took in run], n=100)
    return cuts[49], cuts[98]


def _read(shells: list[pexpect.spawn]) -> None:
    """Reads what the shells print, for some time. Those that nobody reads would stop."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        for shell in select.select(shells, [], [], 0.1)[0]:
            shell.read_nonblocking(65536)

"""The boot rig: hosts made of namespaces, and the internet around them.

A `World` moves this process into a network namespace of its own and starts servers there: real moto and real pebble,
each behind a small server that fails on demand (`fault`). A `Host` is a process tree with its own mounts and process
ids; its root is an overlay of this machine. The scripts run as root, at their real paths, on loop devices with real
XFS. The stand-ins are in `standins/`: teleport and tctl, systemctl, dnf, rpm, udevadm. All other programs are real,
and certbot has the version of Amazon Linux 2023.
"""

import contextlib
import ctypes
import dataclasses
import functools
import hashlib
import html
import io
import json
import logging
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
import trustme
import yaml
from filelock import FileLock
from moto.backends import get_backend
from werkzeug import Request, Response
from werkzeug.serving import make_server
from werkzeug.utils import send_file

from sandbox import strict_account
from sandbox.binaries import ServersMissingError, binaries, cached
from teleport_eks.settings import Settings
from teleport_eks.userdata import HostConfig, cloud_config
from tests.waiting import wait_for

STANDINS = Path(__file__).parent / "standins"
CHECKOUT = Path(__file__).parents[2]
REGION, ACCOUNT = "eu-west-1", "123456789012"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "rig", "AWS_SECRET_ACCESS_KEY": "rig"}
# Ports in the world's own network namespace. Nobody else listens there.
IMDS, CDN, AWS, ACME, MOTO, PEBBLE, PEBBLE_MANAGEMENT, DNS, DNS_MANAGEMENT = range(8001, 8010)
ACME_SERVER = f"https://127.0.0.1:{ACME}/dir"
VERSION, NEWER = "18.8.3", "18.8.4"
ADDRESS = "203.0.113.5"
BOOT, CERTIFICATE, ACCESS = "teleport-bootstrap", "teleport-certificate", "teleport-access"  # units
REFUSED = "/var/lib/teleport/letsencrypt/refused"
SECRET = "gh0-s3cret-value"  # noqa: S105  made up
ALWAYS = 1_000_000
# The kernel kills the program when its parent ends.
TIED = ("setpriv", "--pdeathsig", "KILL")
# In a chroot, "/" is not a mount, so unshare cannot change its propagation. Whoever made the chroot has done that.
_ROOT_IS_A_MOUNT = any(line.split()[4] == "/" for line in Path("/proc/self/mountinfo").read_text().splitlines())
OWN_MOUNTS = ("unshare", "--mount", *(() if _ROOT_IS_A_MOUNT else ("--propagation", "unchanged")))
# What answers a request: with a response, or with an application that has it.
View = Callable[[Request], Any]
_LIBC = ctypes.CDLL(None, use_errno=True)
_NEW_NETWORK = 0x40000000
_ANY_CERTIFICATE = ssl._create_unverified_context()  # noqa: S323  for the rig's own servers


def tool(name: str) -> str:
    """A Python tool of the development environment."""
    return str(Path(sys.executable).with_name(name))


def pem(blob: trustme.Blob) -> str:
    return blob.bytes().decode()


def libfaketime() -> str:
    """Debian's libfaketime, for LD_PRELOAD. Empty if there is none."""
    return next(map(str, Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), "")


def missing() -> str:
    """What this machine lacks for the rig, in one line. Empty if nothing is missing."""
    if os.geteuid():
        return "the boot rig makes namespaces, mounts and loop devices: run it as root"
    packages = {"mkfs.xfs": "xfsprogs", "losetup": "mount", "unshare": "util-linux", "ip": "iproute2"}
    packages |= {name: name for name in ("curl", "haproxy")}
    lacking = [package for program, package in packages.items() if not shutil.which(program)]
    lacking += [] if libfaketime() else ["faketime"]
    return f"apt-get install {' '.join(lacking)}" if lacking else ""


def build_or_skip(build: Callable[[], Any]) -> Any:
    """What `build` returns. If something is missing here, the tests are skipped, or fail in CI."""
    reason = missing()
    if not reason:
        try:
            return build()
        except ServersMissingError as error:
            reason = str(error)
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def install_certbot() -> Path:
    """Amazon Linux 2023's certbot, installed from PyPI once, in an environment of its own."""
    project = Path(__file__).parent / "certbot-2.6"
    target = cached("certbot", (project / "uv.lock").read_bytes() + f"{sys.version} {sys.base_prefix}".encode())
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [tool("uv"), "sync", "--quiet", "--locked", "--project", project, "--python", sys.executable]
    environment = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(target), "UV_PYTHON_DOWNLOADS": "never"}
    with FileLock(f"{target}.lock"):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServersMissingError(f"certbot 2.6.0 cannot be installed from PyPI: {done.stderr.strip()[-500:]}")
    return target / "bin" / "certbot"


@dataclasses.dataclass
class Fault:
    """What a server does instead of answering, for requests whose description matches the pattern."""

    pattern: str
    kind: str  # fail, hang, rubbish, cut (half of the body, then nothing)
    times: int = ALWAYS
    status: int = 500
    body: bytes = b"<html>rubbish</html>"
    reached: threading.Event = dataclasses.field(default_factory=threading.Event)
    lifted: threading.Event = dataclasses.field(default_factory=threading.Event)

    def answer(self, request: Request, view: View) -> Response:
        if self.kind == "cut":
            whole = Response.from_app(view(request), request.environ)
            return Response(self._cut(whole.get_data()), whole.status, whole.headers)
        self.reached.set()
        if self.kind == "hang":
            self.lifted.wait(600)
        # ACME's errors need this content type. No other client looks at it.
        kind, status = "application/problem+json", 200 if self.kind == "rubbish" else self.status
        return Response(self.body, status, content_type=kind)

    def _cut(self, body: bytes) -> Iterator[bytes]:
        yield body[: len(body) // 2]
        self.reached.set()
        self.lifted.wait(600)


def answer_metadata(request: Request) -> Response:
    """The instance metadata service. It allows IMDSv2 only, as the instance is set up.

    A host that is not the only one has an address of its own, and asks below it.
    """
    own, _, path = request.path.lstrip("/").partition("latest/")
    if (request.method, path) == ("PUT", "api/token"):
        return Response("token", 200 if "X-aws-ec2-metadata-token-ttl-seconds" in request.headers else 400)
    if request.headers.get("X-aws-ec2-metadata-token") != "token":
        return Response(status=401)
    found = {"meta-data/public-ipv4": ADDRESS, "meta-data/local-ipv4": own.rstrip("/")}.get(path)
    return Response(found, 200 if found else 404)


GITHUB = "github.com", "api.github.com", "token.actions.githubusercontent.com"


class World:
    """The network that the hosts are in, and its servers. Between `World()` and `close` this process is in it too."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.certbot = install_certbot()
        programs = binaries("pebble", "pebble-challtestsrv")
        self.requests: list[str] = []
        self.downloads: dict[str, bytes] = {}
        self.folders: list[Path] = []  # hosts see these, even on other file systems
        # How slow the network is: seconds for each request to a server, by its name; bytes per second of a download.
        self.delays: dict[str, float] = {}
        self.rate = 0.0  # no limit
        self._faults: list[Fault] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._network_before = os.open("/proc/self/ns/net", os.O_RDONLY)
        if _LIBC.unshare(_NEW_NETWORK):
            raise OSError(ctypes.get_errno(), "no namespaces here; the boot rig needs root")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        # The hosts' mounts are below this one's, so they end with it.
        script = "mount -t tmpfs rig /mnt; echo; exec sleep 1d"
        self._holder = subprocess.Popen([*TIED, *OWN_MOUNTS, "sh", "-ec", script], stdout=subprocess.PIPE)
        self._processes.append(self._holder)
        assert self._holder.stdout
        assert self._holder.stdout.read(1) == b"\n", "this machine allows no mounts"
        self._make_certificates()
        self._http = requests.Session()
        self._http.trust_env, self._http.verify = False, str(scratch / "authority.pem")
        self._start_servers(programs)
        for version in (VERSION, NEWER):
            self.publish_stand_ins(version)

    def close(self) -> None:
        self.clear()
        for process in reversed(self._processes):
            process.kill()
            process.wait()
        _LIBC.setns(self._network_before, _NEW_NETWORK)
        os.close(self._network_before)

    @contextlib.contextmanager
    def beside(self) -> Iterator[str]:
        """Sockets that are opened meanwhile are in a network beside the world's, where no host takes a port.

        Gives the address to listen on.
        """
        world = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        if _LIBC.unshare(_NEW_NETWORK):
            raise OSError(ctypes.get_errno(), "unshare")
        try:
            link = f"ip link add veth0 type veth peer name veth0 netns {self._holder.pid}"
            up = "ip addr add 192.0.2.{}/30 dev veth0; ip link set veth0 up"
            subprocess.run(["sh", "-ec", f"{link}; {up.format(2)}"], check=True)
            command = ["nsenter", f"--target={self._holder.pid}", "--net", "sh", "-ec", up.format(1)]
            subprocess.run(command, check=True)
            yield "192.0.2.2"
        finally:
            _LIBC.setns(world, _NEW_NETWORK)
            os.close(world)

    def command(self, *arguments: str | Path) -> list[str]:
        return ["nsenter", f"--target={self._holder.pid}", "--mount", "--root", "--wd", *map(str, arguments)]

    def run(self, *arguments: str | Path) -> str:
        return subprocess.run(self.command(*arguments), check=True, capture_output=True, text=True).stdout

    # -- AWS, names, downloads -------------------------------------------------------------------

    def aws(self, service: str) -> Any:
        """A boto3 client."""
        credentials = {key.lower(): value for key, value in CREDENTIALS.items()}
        return boto3.client(service, region_name=REGION, endpoint_url=f"http://127.0.0.1:{MOTO}", **credentials)

    def set_parameters(self, path: str, values: Mapping[str, str]) -> None:
        """Makes these the only SSM parameters below ``path``."""
        ssm = self.aws("ssm")
        pages = ssm.get_paginator("get_parameters_by_path").paginate(Path=path, Recursive=True)
        old = {item["Name"] for page in pages for item in page["Parameters"]}
        for name in old - {f"{path}/{name}" for name in values}:
            ssm.delete_parameter(Name=name)
        for name, value in values.items():
            kind = "SecureString" if name == "github-client-secret" else "String"
            ssm.put_parameter(Name=f"{path}/{name}", Value=value, Type=kind, Overwrite=True)

    def set_dns(self, path: str, **body: Any) -> None:
        """Calls pebble-challtestsrv, for example ``set_dns("add-a", host="x.", addresses=["1.2.3.4"])``."""
        self._http.post(f"http://127.0.0.1:{DNS_MANAGEMENT}/{path}", json=body, timeout=10).raise_for_status()

    def publish(self, version: str, content: bytes) -> None:
        """Puts a file and its digest where the hosts download."""
        path = f"/teleport-v{version}-linux-amd64-bin.tar.gz"
        self.downloads[path] = content
        self.downloads[f"{path}.sha256"] = f"{hashlib.sha256(content).hexdigest()}  {path[1:]}\n".encode()

    def publish_release(self, release: Path, level: int = 0) -> str:
        """Publishes an unpacked release of the real Teleport, without tsh. Returns its version."""
        said = subprocess.run([release / "teleport", "version"], check=True, capture_output=True, text=True).stdout
        version = re.findall(r"v(\S+)", said)[0]
        self.publish(version, pack_release({n: (release / n).read_bytes() for n in ("teleport", "tctl")}, level))
        return version

    def publish_stand_ins(self, version: str, more: int = 200_000) -> None:
        """Publishes the stand-ins. ``more`` is about how many bytes the archive has."""
        script = f"#!{sys.executable}\n" + (STANDINS / "teleport.py").read_text()
        script = script.replace("@@VERSION@@", version).replace("@@CHECKOUT@@", str(CHECKOUT))
        # tsh only makes the archive large, so that half of a download is something.
        programs = {"teleport": script.encode(), "tctl": script.encode(), "tsh": os.urandom(more)}
        self.publish(version, pack_release(programs))

    # -- faults ----------------------------------------------------------------------------------

    def fault(self, pattern: str, kind: str, times: int = ALWAYS, **more: Any) -> Fault:
        self._faults.append(Fault(pattern, kind, times, **more))
        return self._faults[-1]

    def clear(self) -> None:
        """Ends all faults, and forgets the requests."""
        for fault in self._faults:
            fault.lifted.set()
        self._faults.clear()
        self.requests.clear()

    def asked(self, pattern: str) -> list[str]:
        """The requests since `clear` that match the pattern."""
        return [request for request in self.requests if re.search(pattern, request)]

    def limit_orders(self, text: str) -> None:
        """From now on, orders are refused as Let's Encrypt does. ``text`` is in place of the date."""
        detail = (
            f'too many certificates (250000) already issued for "nip.io" in the last 168h0m0s, {text}: '
            "see https://letsencrypt.org/docs/rate-limits/#new-certificates-per-registered-domain"
        )
        problem = {"type": "urn:ietf:params:acme:error:rateLimited", "status": 429, "detail": detail}
        self.clear()
        self.fault("acme POST /order-plz", "fail", status=429, body=json.dumps(problem).encode())

    def orders(self) -> int:
        """How many certificates were asked for since `clear`."""
        return len(self.asked("acme POST /order-plz"))

    # -- servers ---------------------------------------------------------------------------------

    def _make_certificates(self) -> None:
        """Makes the pair of our own https servers: AWS, ACME and, in tests/teleport, GitHub. The hosts trust it."""
        self.authority = trustme.CA()
        made = self.authority.issue_cert("127.0.0.1", *GITHUB)
        self._certificate, self._key = str(self.scratch / "cert.pem"), str(self.scratch / "key.pem")
        made.cert_chain_pems[0].write_to_path(self._certificate)
        made.private_key_pem.write_to_path(self._key)
        self.authority.cert_pem.write_to_path(self.scratch / "authority.pem")

    def _start_servers(self, programs: Mapping[str, Path]) -> None:
        root = self.start_pebble(programs["pebble"], "acme", ACME, PEBBLE, PEBBLE_MANAGEMENT)
        self.spawn(
            programs["pebble-challtestsrv"], "-defaultIPv6", "", "-defaultIPv4", "127.0.0.1",
            "-dnsserver", f"127.0.0.1:{DNS}", "-management", f"127.0.0.1:{DNS_MANAGEMENT}",
            "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "",
        )  # fmt: skip
        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)  # it logs each request
        account = strict_account.server(MOTO)
        threading.Thread(target=account.serve_forever, daemon=True).start()
        self.serve("imds", answer_metadata, IMDS)
        self.serve("cdn", self._answer_download, CDN)
        self.serve("aws", functools.partial(self._answer_aws, account.app), AWS)
        wait_for(lambda: is_open(DNS_MANAGEMENT), f"nothing listens on {DNS_MANAGEMENT}")
        self.trusted = root + pem(self.authority.cert_pem)
        self.trust = ssl.create_default_context(cadata=self.trusted)
        # What is in moto is the process's, so it may be another world's or the sandbox's.
        self._http.post(f"http://127.0.0.1:{MOTO}/moto-api/reset", timeout=30).raise_for_status()
        role = f"arn:aws:iam::{ACCOUNT}:role/r"
        self.aws("eks").create_cluster(name="demo", roleArn=role, resourcesVpcConfig={"subnetIds": []})
        self.cluster: Any = get_backend("eks")[ACCOUNT][REGION].clusters["demo"]

    def start_pebble(self, program: Path, name: str, port: int, behind: int, management: int, **more: Any) -> str:
        """Starts an ACME server on ``port``, with pebble behind it. Returns its root certificate."""
        pebble = {
            "listenAddress": f"127.0.0.1:{behind}",
            "managementListenAddress": f"127.0.0.1:{management}",
            "certificate": self._certificate,
            "privateKey": self._key,
            "httpPort": 80,
            "tlsPort": 443,
            **more,
        }
        settings = self.scratch / f"{name}.json"
        settings.write_text(json.dumps({"pebble": pebble}))
        fast = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}
        self.spawn(program, "-config", settings, "-dnsserver", f"127.0.0.1:{DNS}", environment=fast)
        for listening in (behind, management):
            wait_for(lambda listening=listening: is_open(listening), f"nothing listens on {listening}")
        self.serve(name, functools.partial(self._answer_acme, behind), port, tls=True)
        return self._http.get(f"https://127.0.0.1:{management}/roots/0", timeout=10).text

    def serve(self, name: str, view: View, port: int, *, tls: bool = False, address: str = "127.0.0.1") -> None:
        """Starts a server in a thread of this process. It remembers its requests, and has the faults."""

        @Request.application
        def answer(request: Request) -> Any:
            what = request.headers.get("X-Amz-Target") or f"{request.method} {request.full_path.removesuffix('?')}"
            described = f"{name} {what} {request.headers.get('Range', '')}".rstrip()
            self.requests.append(described)
            time.sleep(self.delays.get(name, 0))
            for fault in self._faults:
                if fault.times > 0 and re.search(fault.pattern, described):
                    fault.times -= 1
                    return fault.answer(request, view)
            return view(request)

        pair = (self._certificate, self._key) if tls else None
        server = make_server(address, port, answer, threaded=True, ssl_context=pair)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def _answer_download(self, request: Request) -> Response:
        if request.path not in self.downloads:
            return Response(status=404)
        content = self.downloads[request.path]
        if self.rate:
            length = {"Content-Length": str(len(content))}
            return Response(slowly(content, self.rate), headers=length, content_type="application/gzip")
        return send_file(io.BytesIO(content), request.environ, "application/gzip", etag=False)

    def _answer_aws(self, account: Any, request: Request) -> Any:
        # Pebble's name server stands in for Route 53's: it answers with what the zone gets.
        if request.path.endswith("/rrset/") and request.method == "POST":
            change = dict(re.findall(r"<(Action|Name|Value)>(.*?)</", request.get_data(as_text=True), re.DOTALL))
            host, value = f"{change['Name'].rstrip('.')}.", html.unescape(change["Value"]).strip('"')
            if change["Action"] == "DELETE":
                self.set_dns("clear-txt", host=host)
            else:
                self.set_dns("set-txt", host=host, value=value)
            request.environ["wsgi.input"] = io.BytesIO(request.get_data())
        return account

    def _answer_acme(self, behind: int, request: Request) -> Response:
        """Passes the request to pebble, with the Host header, which pebble puts into its addresses."""
        url, headers = f"https://127.0.0.1:{behind}{request.path}", dict(request.headers)
        got = self._http.request(request.method, url, data=request.get_data(), headers=headers, timeout=30)
        drop = {"content-length", "transfer-encoding", "connection"}
        return Response(
            got.content, got.status_code, [item for item in got.headers.items() if item[0].lower() not in drop]
        )

    def spawn(self, program: Path, *arguments: str | Path, environment: Mapping[str, str] | None = None) -> None:
        with (self.scratch / f"{program.name}.log").open("ab") as log:
            command, values = [*TIED, program, *arguments], {**os.environ, **(environment or {})}
            process = subprocess.Popen(command, env=values, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._processes.append(process)


def is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def slowly(content: bytes, rate: float) -> Iterator[bytes]:
    """The content in pieces, so many bytes per second."""
    began, size = time.monotonic(), 1 << 18
    for end in range(size, len(content) + size, size):
        time.sleep(max(0, began + min(end, len(content)) / rate - time.monotonic()))
        yield content[end - size : end]


def pack_release(programs: Mapping[str, bytes], level: int = 0) -> bytes:
    """An archive with these programs, as on Teleport's own server. ``level``: how well it is compressed."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=level) as archive:
        for name, data in programs.items():
            member = tarfile.TarInfo(f"teleport/{name}")
            member.size, member.mode = len(data), 0o755
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


class Volume:
    """An EBS volume: a loop device. A host can go away without it."""

    def __init__(self, image: Path, size: int = 320 << 20) -> None:
        self.image = image
        if not image.exists():
            image.touch()
            os.truncate(image, size)
        made = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True)
        self.device = made.stdout.strip()

    def grow(self, size: int) -> None:
        os.truncate(self.image, size)
        subprocess.run(["losetup", "--set-capacity", self.device], check=True)

    def delete(self) -> None:
        subprocess.run(["losetup", "--detach", self.device], check=True)
        self.image.unlink()


@dataclasses.dataclass
class Run:
    """How one run of a unit ended."""

    code: int
    console: str  # the step lines, which EC2's console shows
    journal: str

    def __str__(self) -> str:
        return f"exit {self.code}\n{self.console}\n{self.journal[-3000:]}"


class Host:
    """One instance. It is off until `power_on`. Its root disk, `files`, survives a reboot."""

    def __init__(self, world: World, name: str, config: HostConfig, volume: Volume | None = None) -> None:
        self.world, self.name, self.config, self.volume = world, name, config, volume
        self.files = Path("/mnt") / name  # in the world's mount namespace
        self.settings: dict[str, str] = {}
        self._process: subprocess.Popen[str] | None = None
        world.run("mkdir", "-p", self.files / "upper", self.files / "work", self.files / "root")

    # -- power -----------------------------------------------------------------------------------

    def power_on(self) -> None:
        certbot = self.world.certbot
        seen = [certbot.parents[1], CHECKOUT, sys.prefix, sys.base_prefix, *self.world.folders]
        init = ["bash", STANDINS / "init", self.files, sys.executable, tool("aws"), certbot, *seen]
        command = self.world.command(*TIED, *OWN_MOUNTS, "--pid", "--fork", "--kill-child", *init)
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        self.pid = int(self._process.stdout.readline())
        if self.volume:
            self.attach(self.volume)

    def write_user_data(self, **changes: Any) -> None:
        """Writes the files as cloud-init does. With changes: as after a stop, new user data, and a start."""
        self.config = with_changes(self.config, **changes)
        document = yaml.safe_load(cloud_config(self.config))
        for entry in document["write_files"]:
            self.write(entry["path"], entry["content"], int(entry["permissions"], 8))
        self.configure()
        if ["update-ca-trust"] in document["bootcmd"]:
            bundle, added = "/etc/pki/tls/certs/ca-bundle.crt", "/etc/pki/ca-trust/source/anchors/teleport-eks.pem"
            self.write(bundle, self.world.trusted + self.read(added))
            self.configure(SSL_CERT_FILE=bundle, REQUESTS_CA_BUNDLE=bundle)

    def configure(self, **settings: str) -> None:
        """Sets the units' environment: where the stand-ins are, and no pauses.

        The product's own time limits stay, so that a busy machine has time. A test that wants to reach a limit makes
        that one short.
        """
        self.settings.update(settings)
        values = {
            **CREDENTIALS,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{AWS}",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{IMDS}",
            "AWS_MAX_ATTEMPTS": "1",
            "REQUESTS_CA_BUNDLE": "/etc/rig-trusted.pem",
            "SSL_CERT_FILE": "/etc/rig-trusted.pem",
            "PAUSE_FIRST": "0",
            "PAUSE_MAX": "0",
            **self.settings,
        }
        self.write("/etc/rig.env", "".join(f"{key}={value}\n" for key, value in values.items()))
        self.write("/etc/rig-trusted.pem", self.world.trusted)

    def power_off(self) -> None:
        """Ends the host at once, as a power cut does: nothing stops or unmounts in order."""
        if self._process:
            # Killing the first process of the namespace ends all others, their ports and their mounts.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def reboot(self) -> None:
        self.power_off()
        self.power_on()

    def resume(self) -> None:
        """Mounts the volume and starts Teleport, without the bootstrap."""
        self.sh("mount /dev/disk/by-id/* /var/lib/teleport && systemctl start teleport.service")
        wait_for(self.ping, "Teleport does not answer, see /var/log/rig/teleport.service.log on the host")

    def attach(self, volume: Volume) -> None:
        self.volume = volume
        link = f"nvme-Amazon_Elastic_Block_Store_{(self.config.volume_id or '').replace('-', '')}"
        self.sh(f"ln -sfn {volume.device} /dev/disk/by-id/{link} && udevadm settle")

    # -- commands and files ----------------------------------------------------------------------

    def command(self, *arguments: str) -> list[str]:
        return ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--root", "--wdns=/", *arguments]

    def sh(self, script: str, check: bool = True) -> str:
        """The output of a shell script that runs as root on the host."""
        command = self.command(
            "env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "bash", "-c", script
        )
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{script}: {done.stderr}"
        return done.stdout.strip()

    def path(self, path: str) -> Path:
        """A file of the host, seen from here. Not for paths with an absolute link in them."""
        return Path(f"/proc/{self.pid}/root") / path.lstrip("/")

    def read(self, path: str) -> str:
        """A file's text. Empty if there is no such file."""
        return self.path(path).read_text() if self.path(path).exists() else ""

    def write(self, path: str, text: str, permissions: int = 0o644) -> None:
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(permissions)

    def break_command(self, command: str, kind: str, times: int = ALWAYS, text: str = "") -> None:
        """Makes a command on the host fail; see standins/faulty."""
        self.write(f"/run/rig/{command}.fault", f"{kind} {times} {text}\n")

    def use_newest_certbot(self) -> None:
        """Instead of the one of Amazon Linux 2023."""
        self.sh(f"ln -sfn {tool('certbot')} /usr/lib/rig/certbot")

    def make_renewal_due(self) -> None:
        """As if the last third of the certificate's time had begun."""
        configuration = "/var/lib/teleport/letsencrypt/renewal/*.conf"
        self.sh(f"sed -i -e '1i renew_before_expiry = 4000 days' -e '/^renew_before_expiry/d' {configuration}")

    def repair(self) -> None:
        """Ends all faults, and sets the product's own time limits again."""
        self.sh("rm -f /run/rig/*.fault /run/rig/*.reached")
        self.world.clear()
        self.settings.clear()
        self.configure()

    # -- units -----------------------------------------------------------------------------------

    def start(self, unit: str, timeout: float = 180) -> Run:
        """Starts a unit, as systemd does when it is due, and waits for its end."""
        process = self.begin(unit)
        try:
            console, journal = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill(unit)
            console, journal = process.communicate()
            raise AssertionError(f"{unit} did not end in {timeout} s\n{console}\n{journal[-3000:]}") from None
        return Run(process.returncode, console, journal)

    def succeed(self, unit: str) -> Run:
        """Starts a unit, which must succeed."""
        run = self.start(unit)
        assert run.code == 0, f"{unit}: {run}"
        return run

    def fail(self, unit: str, reason: str) -> Run:
        """Starts a unit, which must fail and say a reason on the console that matches the pattern."""
        run = self.start(unit)
        assert run.code, f"{unit} did not fail: {run}"
        assert re.search(reason, run.console), f"{unit}: no {reason!r}: {run}"
        return run

    def begin(self, unit: str) -> subprocess.Popen[str]:
        command = self.command("/usr/local/sbin/systemctl", "start", f"{unit}.service")
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def kill(self, unit: str) -> None:
        """Kills the unit's script and all that it started, with -9."""
        self.sh(f"systemctl kill {unit}.service")

    # -- results ---------------------------------------------------------------------------------

    def ping(self, trust: ssl.SSLContext = _ANY_CERTIFICATE) -> dict[str, Any] | None:
        """The proxy's answer. None if there is none, or if ``trust`` does not accept the certificate."""
        name = self.config.hostname
        with (
            contextlib.suppress(OSError, ValueError),
            socket.create_connection(("127.0.0.1", int(self.config.settings.web_port)), 20) as plain,
            trust.wrap_socket(plain, server_hostname=name) as connection,
        ):
            connection.sendall(f"GET /webapi/find HTTP/1.0\r\nHost: {name}\r\n\r\n".encode())
            return json.loads(connection.makefile("rb").read().partition(b"\r\n\r\n")[2])
        return None

    def is_trusted(self) -> bool:
        """Would a browser accept the certificate?"""
        return self.ping(self.world.trust) is not None

    def wait_trusted(self) -> None:
        wait_for(self.is_trusted, "the proxy does not answer, or its certificate is not trusted")

    def certificate(self) -> str:
        """The certificate that clients get. Empty if Teleport does not run."""
        with contextlib.suppress(OSError):
            return ssl.get_server_certificate(("127.0.0.1", int(self.config.settings.web_port)))
        return ""

    def places(self, text: str) -> list[str]:
        """Where ``text`` is: in a process's arguments or environment, or in a file, in memory or on a disk."""
        self.write("/dev/pattern", text)  # an argument of grep would be found too
        here = "/run /dev/shm /var/lib/teleport /proc/[0-9]*/cmdline /proc/[0-9]*/environ"
        found = self.sh(f"grep -rlsFf /dev/pattern {here}", check=False)
        pattern = self.path("/dev/pattern")
        return (found + self.world.run("sh", "-c", f"grep -rlsFf {pattern} {self.files}/upper || true")).split()

    def resources(self) -> dict[str, Any]:
        return json.loads(self.read("/var/lib/teleport/backend.json") or "{}")

    def data(self) -> dict[str, Any]:
        """Names, times and contents of everything on the data volume. Equal means that nothing was written.

        Directories count only by name, because certbot makes and removes a lock in two of them.
        """
        volume, found = self.path("/var/lib/teleport"), {}
        for path in volume.rglob("*"):
            content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
            found[str(path.relative_to(volume))] = content is not None and (path.lstat().st_mtime_ns, content)
        return found


def with_changes(config: HostConfig, **changes: Any) -> HostConfig:
    """``config`` with other values, of its own or of its settings."""
    settings = {name: changes.pop(name) for name in Settings.model_fields if name in changes}
    return dataclasses.replace(config, settings=config.settings.model_copy(update=settings), **changes)


class Rig:
    """Makes hosts and volumes, and takes them away after the test."""

    def __init__(self, world: World, folder: Path, number: int) -> None:
        self.world, self.folder, self.number = world, folder, number
        self.hosts: list[Host] = []
        self.volumes: list[Volume] = []

    def config(self, **changes: object) -> HostConfig:
        defaults = HostConfig(
            settings=Settings(cluster_name="demo", acme_email="ops@example.org", acme_server=ACME_SERVER),
            stack=f"s{self.number}",
            region=REGION,
            hostname=f"h{self.number}.example.org",
            public_ip=ADDRESS,
            volume_id="vol-0123456789abcdef0",
            parameters_path=f"/teleport-eks/s{self.number}",
            teleport_cdn=f"http://127.0.0.1:{CDN}",
        )
        return with_changes(defaults, **{"teleport_version": VERSION, "maintenance_window": "none", **changes})

    def volume(self, image: Path | None = None) -> Volume:
        target = self.folder / f"volume-{len(self.volumes)}"
        if image:
            subprocess.run(["cp", "--sparse=always", image, target], check=True)
        self.volumes.append(Volume(target))
        return self.volumes[-1]

    def add(self, config: HostConfig, volume: Volume | None) -> Host:
        """A host that is off."""
        self.hosts.append(Host(self.world, f"h{self.number}-{len(self.hosts)}", config, volume))
        return self.hosts[-1]

    def host(self, volume: Volume | None = None, **changes: object) -> Host:
        """A new instance. It is on and has its user data, and no unit has started."""
        host = self.add(self.config(**changes), volume)
        host.power_on()
        host.write_user_data()
        return host

    def set_teams(self, host: Host, *roles: str, change: Mapping[str, Any] | None = None) -> None:
        """Writes the stack's SSM parameters for these teams. ``change`` replaces some, or leaves them out with None."""
        values: dict[str, Any] = {f"roles/{name}": role(name) for name in roles}
        values |= {"github-connector": connector(*roles), "github-client-secret": SECRET, **(change or {})}
        texts = {
            name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items() if value
        }
        self.world.set_parameters(host.config.parameters_path, texts)

    def close(self) -> None:
        self.world.clear()
        for host in self.hosts:
            self.world.set_parameters(host.config.parameters_path, {})
            host.power_off()
            self.world.run("rm", "-rf", host.files)
        for volume in self.volumes:
            volume.delete()


def role(name: str, group: str = "dev") -> dict[str, Any]:
    allow = {"kubernetes_groups": [group], "kubernetes_labels": {"*": "*"}}
    return {"kind": "role", "version": "v7", "metadata": {"name": name}, "spec": {"allow": allow}}


def connector(*roles: str) -> dict[str, Any]:
    teams = [{"organization": "acme", "team": name, "roles": [name]} for name in roles]
    spec = {"client_id": "id", "redirect_url": "https://h/v1/webapi/github/callback", "teams_to_roles": teams}
    return {"kind": "github", "version": "v3", "metadata": {"name": "github"}, "spec": spec}

"""The boot rig: hosts made of namespaces, and around them what the internet would be.

A `World` is one network namespace with a loopback interface. In it run, once for all tests, real
moto and real pebble, and in front of them small servers that can be told to misbehave (`fault`).
A `Host` is a process tree with its own mounts and process ids whose root is an overlay of this
machine: the scripts run as root, at their real paths, on real loop devices with real XFS. Of the
host's programs these are stand-ins, all in `standins/`: teleport and tctl, systemctl, dnf, rpm and
udevadm. aws, certbot, curl, openssl, mkfs.xfs and mount are the real ones, certbot in the version
of Amazon Linux 2023.
"""

# ruff: noqa: S310  the commands and addresses here are the rig's own

import base64
import contextlib
import ctypes
import dataclasses
import gzip
import hashlib
import html
import http.client
import http.server
import io
import json
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
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import yaml
from filelock import FileLock

from components.settings import Settings
from sandbox import strict_account
from sandbox.binaries import ServersMissingError, binaries, cached
from userdata import HostConfig, render

STANDINS = Path(__file__).parent / "standins"
CHECKOUT = Path(__file__).parents[2]
REGION = "eu-west-1"


def tool(name: str) -> str:
    """A Python tool of the development environment, else of this machine; empty when there is none."""
    here = Path(sys.executable).with_name(name)
    return str(here) if here.exists() else shutil.which(name) or ""


def certbot_of_the_host() -> Path:
    """Amazon Linux 2023's certbot, from PyPI, in an environment of its own that is made once."""
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


CREDENTIALS = {"AWS_ACCESS_KEY_ID": "rig", "AWS_SECRET_ACCESS_KEY": "rig"}
# Ports in the world's own network namespace, where nobody else is.
IMDS, CDN, AWS, ACME, MOTO, PEBBLE, PEBBLE_MANAGEMENT, DNS, DNS_MANAGEMENT = range(8001, 8010)
ACME_SERVER = f"https://127.0.0.1:{ACME}/dir"
VERSION, NEWER = "18.8.3", "18.8.4"
# Ends with the process that started it, however that ends.
TIED = ("setpriv", "--pdeathsig", "KILL")
# In a chroot "/" is no mount whose propagation could be changed; whoever made the chroot has seen to that.
_ROOT_IS_A_MOUNT = any(line.split()[4] == "/" for line in Path("/proc/self/mountinfo").read_text().splitlines())
OWN_MOUNTS = ("unshare", "--mount", *(() if _ROOT_IS_A_MOUNT else ("--propagation", "unchanged")))
_LIBC = ctypes.CDLL(None, use_errno=True)


def libfaketime() -> str:
    """Debian's libfaketime, for LD_PRELOAD."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    return str(found[0]) if found else ""


def wait_for(fact: Callable[[], object], otherwise: str) -> None:
    """Until the fact is there. The time is only for giving up, so it is long."""
    deadline = time.monotonic() + 60
    while not fact():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


@dataclasses.dataclass
class Fault:
    """What a server does instead of answering, for requests whose description matches."""

    pattern: str
    kind: str  # fail, hang, rubbish, cut (half of the body, then nothing)
    times: int = 1_000_000
    status: int = 500
    body: bytes = b"<html>rubbish</html>"
    reached: threading.Event = dataclasses.field(default_factory=threading.Event)
    lifted: threading.Event = dataclasses.field(default_factory=threading.Event)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by `answer`, unless a fault is set for the request."""

    protocol_version = "HTTP/1.1"
    world: "World"
    name = ""

    def describe(self) -> str:
        return f"{self.name} {self.command} {self.path}"

    def answer(self, _body: bytes) -> None:
        raise NotImplementedError

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        described = self.describe()
        self.world.requests.append(described)
        fault = self.world.take_fault(described)
        if fault is None or fault.kind == "cut":
            self.cut = fault
            self.answer(body)
            return
        fault.reached.set()
        if fault.kind == "hang":
            fault.lifted.wait(600)
            self.close_connection = True
        else:
            # The type that ACME's errors have; nobody else looks at it.
            kind = {"Content-Type": "application/problem+json"}
            self.send(200 if fault.kind == "rubbish" else fault.status, fault.body, kind)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class _Metadata(Handler):
    name = "imds"

    def answer(self, _body: bytes) -> None:
        if self.command == "PUT" and self.path == "/latest/api/token":
            if "X-aws-ec2-metadata-token-ttl-seconds" not in self.headers:
                return self.send(400, b"")
            return self.send(200, b"token")
        if self.headers.get("X-aws-ec2-metadata-token") != "token":
            return self.send(401, b"")  # IMDSv2 only, as the instance is set up
        if self.path == "/latest/meta-data/public-ipv4" and self.world.public_ip:
            return self.send(200, self.world.public_ip.encode())
        return self.send(404, b"")


class _Downloads(Handler):
    name = "cdn"

    def describe(self) -> str:
        return f"{super().describe()} {self.headers.get('Range') or ''}".rstrip()

    def answer(self, _body: bytes) -> None:
        content = self.world.downloads.get(self.path)
        if content is None:
            return self.send(404, b"")
        start = int(re.sub(r"bytes=(\d+)-", r"\1", self.headers.get("Range") or "bytes=0-"))
        if start >= len(content) and start:
            return self.send(416, b"")
        part = content[start:]
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        if not self.cut:
            return self.send(206 if start else 200, part, headers)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part[: len(part) // 2])
        self.wfile.flush()
        self.cut.reached.set()
        self.cut.lifted.wait(600)
        self.close_connection = True
        return None


class _Forward(Handler):
    """To the real server, with the Host header that it makes its addresses of."""

    port = 0
    tls = False

    def answer(self, body: bytes) -> None:
        make = http.client.HTTPSConnection if self.tls else http.client.HTTPConnection
        more: dict[str, Any] = {"context": ssl._create_unverified_context()} if self.tls else {}  # noqa: S323
        with self.world.inside():
            upstream = make("127.0.0.1", self.port, timeout=30, **more)
            upstream.connect()
        upstream.request(self.command, self.path, body, dict(self.headers.items()))
        response = upstream.getresponse()
        content = self.changed(response.read())
        drop = {"content-length", "transfer-encoding", "connection"}
        self.send(response.status, content, {k: v for k, v in response.getheaders() if k.lower() not in drop})
        upstream.close()

    def changed(self, content: bytes) -> bytes:
        return content


class _Aws(_Forward):
    name, port = "aws", MOTO

    def describe(self) -> str:
        return f"aws {self.headers.get('X-Amz-Target') or f'{self.command} {self.path}'}"

    def answer(self, body: bytes) -> None:
        # Route 53's servers are pebble's: what the zone is given is what pebble finds.
        if self.path.endswith("/rrset/") and self.command == "POST":
            action, name, value = (
                re.search(f"<{tag}>(.*?)</{tag}>", body.decode(), re.DOTALL) for tag in ("Action", "Name", "Value")
            )
            assert action
            assert name
            assert value
            host = f"{name[1].rstrip('.')}."
            if action[1] == "DELETE":
                self.world.dns("clear-txt", host=host)
            else:
                self.world.dns("set-txt", host=host, value=html.unescape(value[1]).strip('"'))
        super().answer(body)

    def changed(self, content: bytes) -> bytes:
        """A cluster is described by moto, and where it has an API server, by that."""
        if not self.world.cluster or not self.path.startswith("/clusters/"):
            return content
        return json.dumps({"cluster": json.loads(content)["cluster"] | self.world.cluster}).encode()


class _Acme(_Forward):
    name, port, tls = "acme", PEBBLE, True


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: it is a client that was killed."""


class World:
    """The network that the hosts are in, and its servers. Close it to end all of them."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.certbot = certbot_of_the_host()
        self.requests: list[str] = []
        self.public_ip = ""
        self.downloads: dict[str, bytes] = {}
        self.cluster: dict[str, Any] = {}  # of EKS's description what moto does not know
        self.folders: list[Path] = []  # that the hosts see, whatever file system they are on
        self._faults: list[Fault] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        # Mounts of the hosts are made below this one's, and so end with it.
        self._holder = subprocess.Popen(
            [
                *TIED,
                *OWN_MOUNTS,
                "--net",
                "sh",
                "-ec",
                "ip link set lo up; mount -t tmpfs rig /mnt; echo; exec sleep 1d",
            ],
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout
        if self._holder.stdout.read(1) != b"\n":
            raise RuntimeError("no namespaces here; the boot rig needs root")
        self._processes.append(self._holder)
        self._own_net, self._net = (os.open(f"/proc/{p}/ns/net", os.O_RDONLY) for p in ("self", self._holder.pid))
        self._make_certificates()
        self._start_servers()
        self._publish_stand_ins(VERSION)
        self._publish_stand_ins(NEWER)

    @contextlib.contextmanager
    def inside(self) -> Iterator[str]:
        """Sockets that this thread opens meanwhile are in the world's network. Gives the address to listen on."""
        if _LIBC.setns(self._net, 0x40000000):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield "127.0.0.1"
        finally:
            _LIBC.setns(self._own_net, 0x40000000)

    @contextlib.contextmanager
    def beside(self) -> Iterator[str]:
        """The same for a network beside the world's, where the hosts have taken no port."""
        if _LIBC.unshare(0x40000000):
            raise OSError(ctypes.get_errno(), "unshare")
        try:
            to_world = f"ip link add veth0 type veth peer name veth0 netns {self._holder.pid}"
            up = "ip addr add 192.0.2.{}/30 dev veth0; ip link set veth0 up"
            subprocess.run(["sh", "-ec", f"{to_world}; {up.format(2)}"], check=True)
            self.run("sh", "-ec", up.format(1))
            yield "192.0.2.2"
        finally:
            _LIBC.setns(self._own_net, 0x40000000)

    def command(self, *arguments: str | Path) -> list[str]:
        return ["nsenter", f"--target={self._holder.pid}", "--mount", "--net", "--root", "--wd", *map(str, arguments)]

    def run(self, *arguments: str | Path) -> str:
        return subprocess.run(self.command(*arguments), check=True, capture_output=True, text=True).stdout

    def aws(self, service: str) -> Any:
        """A boto3 client; use it `inside()`."""
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=f"http://127.0.0.1:{MOTO}",
            aws_access_key_id="rig",
            aws_secret_access_key="rig",  # noqa: S106  moto takes any
        )

    def fault(self, pattern: str, kind: str, times: int = 1_000_000, **more: Any) -> Fault:
        fault = Fault(pattern, kind, times, **more)
        self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """No faults, no DNS answers of a test's own, and the requests are forgotten."""
        for fault in self._faults:
            fault.lifted.set()
        self._faults.clear()
        self.requests.clear()

    def take_fault(self, described: str) -> Fault | None:
        for fault in self._faults:
            if fault.times > 0 and re.search(fault.pattern, described):
                fault.times -= 1
                return fault
        return None

    def dns(self, path: str, **body: Any) -> None:
        """A call of pebble-challtestsrv, for example ``dns("add-a", host="x.", addresses=["1.2.3.4"])``."""
        with self.inside():
            request = urllib.request.Request(
                f"http://127.0.0.1:{DNS_MANAGEMENT}/{path}", json.dumps(body).encode(), method="POST"
            )
            urllib.request.urlopen(request, timeout=10).close()

    def close(self) -> None:
        self.clear()
        for process in reversed(self._processes):
            process.kill()
            process.wait()

    def _make_certificates(self) -> None:
        """For our own https, which the hosts trust: the ACME server and, in tests/teleport, GitHub."""
        options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        options += ["-subj", "/CN=rig", "-addext", "subjectAltName=IP:127.0.0.1,DNS:github.com,DNS:api.github.com"]
        subprocess.run(
            ["openssl", "req", "-x509", *options, "-keyout", "key.pem", "-out", "cert.pem"],
            cwd=self.scratch,
            check=True,
            capture_output=True,
            # From yesterday, for the host whose clock is behind.
            env={**os.environ, "LD_PRELOAD": libfaketime(), "FAKETIME": "-1d"},
        )

    def _start_servers(self) -> None:
        programs = binaries("pebble", "pebble-challtestsrv")
        pebble = {
            "listenAddress": f"127.0.0.1:{PEBBLE}",
            "managementListenAddress": f"127.0.0.1:{PEBBLE_MANAGEMENT}",
            "certificate": str(self.scratch / "cert.pem"),
            "privateKey": str(self.scratch / "key.pem"),
            "httpPort": 80,
            "tlsPort": 443,
            "ocspResponderURL": "",
            "profiles": {"default": {"description": "90 days", "validityPeriod": 7776000}},
        }
        (self.scratch / "pebble.json").write_text(json.dumps({"pebble": pebble}))
        fast = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}
        self.spawn(*strict_account.command(MOTO))
        self.spawn(
            programs["pebble-challtestsrv"], "-defaultIPv6", "", "-defaultIPv4", "127.0.0.1",
            "-dnsserver", f"127.0.0.1:{DNS}", "-management", f"127.0.0.1:{DNS_MANAGEMENT}",
            "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "",
        )  # fmt: skip
        self.spawn(
            programs["pebble"],
            "-config",
            self.scratch / "pebble.json",
            "-dnsserver",
            f"127.0.0.1:{DNS}",
            environment=fast,
        )
        for handler, port in ((_Metadata, IMDS), (_Downloads, CDN), (_Aws, AWS), (_Acme, ACME)):
            self.serve(handler, port, tls=port == ACME)
        for port in (MOTO, PEBBLE, PEBBLE_MANAGEMENT, DNS_MANAGEMENT):
            wait_for(lambda port=port: self._answers(port), f"nothing listens on {port}")
        with self.inside():
            root = urllib.request.urlopen(
                f"https://127.0.0.1:{PEBBLE_MANAGEMENT}/roots/0",
                context=ssl._create_unverified_context(),  # noqa: S323  it is the one that is asked for
            ).read()
            self.aws("eks").create_cluster(
                name="demo", roleArn="arn:aws:iam::123456789012:role/r", resourcesVpcConfig={"subnetIds": []}
            )
        # moto makes up an authority that is no certificate, which stops Teleport.
        authority = (self.scratch / "cert.pem").read_bytes()
        self.cluster = {"certificateAuthority": {"data": base64.b64encode(authority).decode()}}
        (self.scratch / "trusted.pem").write_bytes(root + (self.scratch / "cert.pem").read_bytes())

    def serve(self, handler: type[Handler], port: int, *, tls: bool = False, beside: bool = False) -> None:
        """A server in this world's network or beside it, in a thread of this process."""
        bound: Any = type(handler.__name__, (handler,), {"world": self})
        with self.beside() if beside else self.inside() as address:
            server = _Server((address, port), bound)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.scratch / "cert.pem", self.scratch / "key.pem")
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def spawn(self, program: str | Path, *arguments: str | Path, environment: dict[str, str] | None = None) -> None:
        log = (self.scratch / f"{Path(program).name}.log").open("ab")
        self._processes.append(
            subprocess.Popen(
                self.command(*TIED, program, *arguments),
                env={**os.environ, **CREDENTIALS, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        )

    def _answers(self, port: int) -> bool:
        with contextlib.suppress(OSError), self.inside():
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        return False

    def _publish_stand_ins(self, version: str) -> None:
        script = f"#!{sys.executable}\n" + (STANDINS / "teleport.py").read_text()
        script = script.replace("@@VERSION@@", version).replace("@@CHECKOUT@@", str(CHECKOUT))
        # tsh only fills the archive, so that a half of it is something.
        programs = {"teleport": script.encode(), "tctl": script.encode(), "tsh": os.urandom(200_000)}
        self.publish(version, release(programs))

    def publish(self, version: str, content: bytes, digest: str | None = None) -> str:
        """Puts a file where the hosts download; returns its digest."""
        path = f"/teleport-v{version}-linux-amd64-bin.tar.gz"
        digest = digest or hashlib.sha256(content).hexdigest()
        self.downloads[path] = content
        self.downloads[f"{path}.sha256"] = f"{digest}  {path[1:]}\n".encode()
        return digest


def release(programs: dict[str, bytes]) -> bytes:
    """An archive as on Teleport's own server, with these programs in it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=0) as archive:
        for name, data in programs.items():
            member = tarfile.TarInfo(f"teleport/{name}")
            member.size, member.mode = len(data), 0o755
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


class Volume:
    """An EBS volume: a loop device that outlives the hosts it is attached to."""

    def __init__(self, image: Path, size: int = 320 << 20) -> None:
        self.image = image
        if not image.exists():
            with image.open("wb") as file:
                file.truncate(size)
        made = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True)
        self.device = made.stdout.strip()

    def grow(self, size: int) -> None:
        os.truncate(self.image, size)
        subprocess.run(["losetup", "--set-capacity", self.device], check=True)

    def detach(self) -> None:
        subprocess.run(["losetup", "--detach", self.device], check=True)


@dataclasses.dataclass
class Run:
    """How one start of a unit ended."""

    code: int
    console: str  # what EC2's console would show: the step lines
    journal: str

    def __str__(self) -> str:
        return f"exit {self.code}\n{self.console}\n{self.journal[-3000:]}"


def with_changes(config: HostConfig, **changes: Any) -> HostConfig:
    """``config`` with other values, of its own or of its settings."""
    settings = {name: changes.pop(name) for name in Settings.model_fields if name in changes}
    return dataclasses.replace(config, settings=config.settings.model_copy(update=settings), **changes)


class Host:
    """One instance: off until `power_on`. `files` is its root disk and survives a reboot."""

    def __init__(self, world: World, name: str, config: HostConfig, volume: Volume | None = None) -> None:
        self.world, self.name, self.config, self.volume = world, name, config, volume
        self.files = Path("/mnt") / name  # in the world's mount namespace
        self.settings: dict[str, str] = {}
        self._process: subprocess.Popen[str] | None = None
        world.run("mkdir", "-p", self.files / "upper", self.files / "work", self.files / "root")

    # -- power ---------------------------------------------------------------------------------

    def power_on(self) -> None:
        self._process = subprocess.Popen(
            self.world.command(
                *TIED,
                *OWN_MOUNTS,
                "--pid",
                "--fork",
                "--kill-child",
                "bash",
                STANDINS / "init",
                self.files,
                sys.executable,
                tool("aws"),
                self.world.certbot,
                self.world.certbot.parents[1],
                CHECKOUT,
                sys.prefix,
                sys.base_prefix,
                *self.world.folders,
            ),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line.strip():
            self._process = None
            raise RuntimeError(f"{self.name} did not start")
        self.pid = int(line)
        if self.volume:
            self.attach(self.volume)

    def first_boot(self) -> None:
        """What cloud-init does with the user data, up to the unit that it starts."""
        raw = base64.b64decode(render(self.config))
        document = yaml.safe_load(gzip.decompress(raw))
        for entry in document["write_files"]:
            self.write(entry["path"], entry["content"], entry["permissions"])
        self.configure()

    def configure(self, **settings: str) -> None:
        """The rig's own environment for the units: where the stand-ins are, and no pauses.

        The limits are the product's own, and so leave time on a busy machine. Who wants one to be
        reached makes that one short.
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
            "RIG_RELOAD": "0.1",
            **self.settings,
        }
        self.write("/etc/rig.env", "".join(f"{key}={value}\n" for key, value in values.items()))
        self.write("/etc/rig-trusted.pem", (self.world.scratch / "trusted.pem").read_text())

    def power_off(self) -> None:
        """At once, like a host that dies: nothing is told to stop, nothing is unmounted in order."""
        if self._process:
            # The first process of a namespace is gone when all others are, and their ports and mounts.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def reboot(self) -> None:
        self.power_off()
        self.power_on()

    def resume(self) -> None:
        """The proxy as it was, without the bootstrap's own way there."""
        self.sh(
            "mount -U $(blkid -p -o value -s UUID /dev/disk/by-id/*) /var/lib/teleport && "
            "systemctl start teleport.service"
        )
        wait_for(self.ping, "Teleport does not answer, see /var/log/rig/teleport.service.log on the host")

    def attach(self, volume: Volume) -> None:
        self.volume = volume
        link = f"nvme-Amazon_Elastic_Block_Store_{self.config.volume_id.replace('-', '')}"
        self.sh(f"ln -sfn {volume.device} /dev/disk/by-id/{link} && udevadm settle")

    # -- looking and touching --------------------------------------------------------------------

    def command(self, *arguments: str) -> list[str]:
        return ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--root", "--wdns=/", *arguments]

    def sh(self, script: str, check: bool = True) -> str:
        """The output of a shell script that runs as root on the host."""
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
        done = subprocess.run(
            self.command("env", "-i", f"PATH={path}", "bash", "-c", script), capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{script}: {done.stderr}")
        return done.stdout.strip()

    def write(self, path: str, text: str, permissions: str = "0644") -> None:
        script = f"mkdir -p {os.path.dirname(path)} && cat >{path} && chmod {permissions} {path}"
        subprocess.run(self.command("bash", "-c", script), input=text, text=True, check=True)

    def spoil(self, command: str, kind: str, times: int = 1_000_000, text: str = "") -> None:
        """Spoils a command on the host; see standins/faulty."""
        self.write(f"/run/rig/{command}.fault", f"{kind} {times} {text}\n")

    def repair(self) -> None:
        """No fault, and limits that leave time."""
        self.sh("rm -f /run/rig/*.fault /run/rig/*.reached")
        self.world.clear()
        self.settings.clear()
        self.configure()

    # -- units -----------------------------------------------------------------------------------

    def start(self, unit: str, timeout: float = 180) -> Run:
        """Starts a unit and waits for it, as systemd would when it is due."""
        process = self.begin(unit)
        try:
            console, journal = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill(unit)
            console, journal = process.communicate()
            raise AssertionError(f"{unit} did not end in {timeout} s\n{console}\n{journal[-3000:]}") from None
        return Run(process.returncode, console, journal)

    def begin(self, unit: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command("/usr/local/sbin/systemctl", "start", f"{unit}.service"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill(self, unit: str) -> None:
        """-9, for the unit's script and all that it started."""
        self.sh(f"/usr/local/sbin/systemctl kill {unit}.service")

    # -- what counts in the end ------------------------------------------------------------------

    def ping(self) -> dict[str, Any] | None:
        """The proxy's answer, whatever its certificate; None when there is none."""
        answer = self.sh("curl -sk --max-time 20 https://127.0.0.1:3080/webapi/find", check=False)
        return json.loads(answer) if answer else None

    def is_trusted(self) -> bool:
        """Would a browser on the other side of the world take the certificate that is served?"""
        name = self.config.hostname
        script = f"curl -s --max-time 20 --cacert /etc/rig-trusted.pem --resolve {name}:3080:127.0.0.1 https://{name}:3080/webapi/find"
        return bool(self.sh(script, check=False))

    def wait_trusted(self) -> bool:
        wait_for(self.is_trusted, "the certificate that is served is not trusted")
        return True

    def served(self) -> str:
        """The fingerprint of the certificate that clients get."""
        got = "openssl s_client -connect 127.0.0.1:3080 </dev/null 2>/dev/null"
        return self.sh(f"{got} | openssl x509 -noout -fingerprint -sha256", check=False)

    def resources(self) -> dict[str, Any]:
        return json.loads(self.sh("cat /var/lib/teleport/backend.json 2>/dev/null || echo '{}'"))

    def data(self) -> str:
        """Names, times and contents of all that is on the data volume: equal means that no file was written.

        Directories only by name: certbot makes and removes a lock in two of them.
        """
        files = "find . ! -type d"
        return self.sh(
            f"cd /var/lib/teleport && find . -type d | sort && {files} -printf '%p %T@ %s %l\\n' | sort && "
            f"{files} -type f | sort | xargs sha256sum"
        )

    def changed_config(self, **changes: Any) -> None:
        """Other user data for the same instance, as after a stop, a change and a start."""
        self.config = with_changes(self.config, **changes)
        self.first_boot()

    @contextlib.contextmanager
    def port_in_use(self, port: int) -> Iterator[None]:
        """Some other program has the port meanwhile."""
        script = f"import socket, sys; s = socket.create_server(('', {port})); print(s, flush=True); sys.stdin.read()"
        command = self.command(sys.executable, "-c", script)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout
            assert holder.stdout.readline(), f"port {port} is not free"
            yield
            # Leaving `with` closes its input, at which it ends, and waits for that.

    def orders(self) -> int:
        """How many certificates were asked for since the faults were last cleared."""
        return sum("acme POST /order-plz" in request for request in self.world.requests)

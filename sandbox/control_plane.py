"""The sandbox's Kubernetes API: the real etcd, kube-apiserver and kube-controller-manager, on loopback.

The servers outlive the process that starts them: one command brings them up, another
stops them. All about them (certificates, data, logs, which processes they are) is in
one directory, so that the directory is all that the second command needs to know.
"""

import base64
import http.client
import ipaddress
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Self, cast

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from filelock import FileLock

from sandbox.binaries import binaries

READY_WITHIN = 60  # seconds; two or three are usual
STOP_WITHIN = 10  # seconds, then it is killed
SERVERS: tuple[str, ...] = ("etcd", "kube-apiserver", "kube-controller-manager")
HEALTH = {"etcd": "/health", "kube-apiserver": "/readyz", "kube-controller-manager": "/healthz"}
# The fewest that make the API behave: what is deleted goes away, and the roles `admin`, `edit` and `view`, which
# are aggregated, have rules. Nothing runs Pods.
CONTROLLERS = ("garbage-collector-controller", "namespace-controller", "clusterrole-aggregation-controller")


class ControlPlaneError(Exception):
    """A server did not come up; the message ends with the last lines of its log."""


@dataclass(frozen=True)
class ControlPlane:
    """The control plane in ``directory``, running or not. As a context manager it is stopped at the end."""

    directory: Path

    @classmethod
    def start(cls, directory: Path) -> Self:
        """Brings up the control plane of that directory, or returns the one that runs there already.

        Started again in the same directory it has the objects, the certificates and, if
        they are still free, the ports of before: kubeconfigs stay valid.
        """
        plane = cls(directory.absolute())
        plane.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with plane._locked():
            if not plane.is_healthy():
                plane._stop()
                try:
                    plane._start(binaries(*SERVERS))
                except BaseException:
                    plane._stop()
                    raise
        return plane

    def stop(self) -> None:
        """Stops the servers and waits until they are gone. The directory stays; nothing to stop is no error."""
        if self.directory.exists():
            with self._locked():
                self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def server(self) -> str:
        """The API's URL, ``https://127.0.0.1:PORT``."""
        return f"https://127.0.0.1:{self._state()['ports']['kube-apiserver']}"

    @property
    def ca_data(self) -> str:
        """The certificate of the cluster's authority as a kubeconfig and EKS give it: PEM in base64."""
        return base64.b64encode((self._pki / "ca.crt").read_bytes()).decode()

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig for ``system:masters``."""
        return self.directory / "kubeconfig"

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig for any user in any groups, authenticated by a certificate of the cluster's authority."""
        name = f"user-{sha256(json.dumps([user, *groups]).encode()).hexdigest()[:12]}"
        return self._write_kubeconfig(self.directory / f"{name}.kubeconfig", name, user, groups)

    def processes(self) -> dict[str, int]:
        """The process ids of the servers that run."""
        return {name: pid for name in SERVERS if (pid := self._pid(name))}

    def is_healthy(self) -> bool:
        """Whether all three servers run and say that they are ready."""
        return all(self._pid(name) and self._is_ready(name) for name in SERVERS)

    def kill_api_server(self) -> None:
        """Ends the API server as a crash would. What it had confirmed is in etcd."""
        self._end("kube-apiserver", signal.SIGKILL)

    def restart_api_server(self) -> None:
        """Ends the API server, if it runs, and starts it again on the same port."""
        self._end("kube-apiserver")
        self._launch("kube-apiserver", self._state()["commands"]["kube-apiserver"])
        self._wait("kube-apiserver")

    # What follows is called with the lock held, except by the fault tests' two methods.

    def _locked(self) -> FileLock:
        return FileLock(self.directory / "lock")

    def _start(self, programs: dict[str, Path]) -> None:
        if not (self._pki / "service-accounts.key").exists():  # the last to be written
            self._pki.mkdir(exist_ok=True, mode=0o700)
            _issue(self._pki, "ca", "sandbox")
            _issue(self._pki, "server", "sandbox-server")
            _write_key(self._pki / "service-accounts.key", ec.generate_private_key(ec.SECP256R1()))
        ports = self._state()["ports"]
        if not ports or not all(map(_is_free, ports.values())):
            ports = dict(zip(SERVERS, _free_ports(len(SERVERS)), strict=True))
        self._save({"ports": ports, "commands": {}, "pids": {}})
        self._write_kubeconfig(self.kubeconfig, "admin", "sandbox-admin", ["system:masters"])
        controllers = self.directory / "controllers.kubeconfig"
        self._write_kubeconfig(controllers, "controllers", "system:kube-controller-manager", ["system:masters"])

        for name, flags in _flags(self.directory, ports).items():
            self._launch(name, [str(programs[name]), *flags])
            self._wait(name)

    def _stop(self) -> None:
        for name in reversed(SERVERS):
            self._end(name)

    def _launch(self, name: str, command: list[str]) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                # Not all of our environment: etcd takes any of its options from there.
                env={"HOME": str(self.directory), "PATH": os.environ.get("PATH", "")},
                start_new_session=True,  # Ctrl-C in the terminal is not for it
            )
        state = self._state()
        state["commands"][name], state["pids"][name] = command, process.pid
        self._save(state)
        while process.poll() is None and not self._pid(name):
            time.sleep(0.01)  # for an instant, a new process has no command line yet
        process.returncode = 0  # it is meant to outlive this object, which would warn about that

    def _end(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        deadline = time.monotonic() + STOP_WITHIN
        if pid := self._pid(name):
            os.kill(pid, how)
        while pid := self._pid(name):
            time.sleep(0.02)
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)

    def _pid(self, name: str) -> int | None:
        """The server's process id, if it runs. Never that of another program that was given the same id since."""
        state = self._state()
        pid, command = state["pids"].get(name), state["commands"].get(name)
        # The options name the directory and the ports. The program itself may be a wrapper.
        return pid if pid and _command_of(pid).endswith(" ".join(command[1:])) else None

    def _wait(self, name: str) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while not self._is_ready(name):
            ended = not self._pid(name)
            if ended or time.monotonic() > deadline:
                log = self.directory / f"{name}.log"
                problem = "ended before it was ready" if ended else f"was not ready after {READY_WITHIN} s"
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
                raise ControlPlaneError(f"{name} {problem}; the end of {log}:\n{tail}")
            time.sleep(0.05)

    def _is_ready(self, name: str) -> bool:
        port = self._state()["ports"][name]
        if name == "etcd":
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        else:
            trusted = ssl.create_default_context(cafile=str(self._pki / "ca.crt"))
            connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=trusted)
        try:
            connection.request("GET", HEALTH[name])
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    @property
    def _pki(self) -> Path:
        return self.directory / "pki"

    def _state(self) -> dict:
        path = self.directory / "state.json"
        return json.loads(path.read_text()) if path.exists() else {"ports": {}, "commands": {}, "pids": {}}

    def _save(self, state: dict) -> None:
        _write_private(self.directory / "state.json", json.dumps(state, indent=2).encode())

    def _write_kubeconfig(self, path: Path, name: str, user: str, groups: Sequence[str]) -> Path:
        _issue(self._pki, name, user, groups)
        certificate, key = (
            base64.b64encode((self._pki / f"{name}.{kind}").read_bytes()).decode() for kind in ("crt", "key")
        )
        cluster = {"server": self.server, "certificate-authority-data": self.ca_data}
        identity = {"client-certificate-data": certificate, "client-key-data": key}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "sandbox", "cluster": cluster}],
            "users": [{"name": user, "user": identity}],
            "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": user}}],
            "current-context": "sandbox",
        }
        _write_private(path, yaml.safe_dump(config, sort_keys=False).encode())
        return path


def _flags(directory: Path, ports: dict[str, int]) -> dict[str, list[str]]:
    """The command line of each server, in the order of their start."""
    pki, etcd = directory / "pki", f"http://127.0.0.1:{ports['etcd']}"
    serving = [
        "--bind-address=127.0.0.1",
        f"--tls-cert-file={pki}/server.crt",
        f"--tls-private-key-file={pki}/server.key",
    ]
    return {
        "etcd": [
            f"--data-dir={directory}/etcd",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            "--listen-peer-urls=http://127.0.0.1:0",
            "--unsafe-no-fsync=true",  # what a crash of the machine loses here is no loss
        ],
        "kube-apiserver": [
            *serving,
            f"--secure-port={ports['kube-apiserver']}",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",  # it refuses a loopback address
            f"--etcd-servers={etcd}",
            f"--client-ca-file={pki}/ca.crt",
            "--authorization-mode=RBAC",
            "--anonymous-auth=true",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki}/service-accounts.key",
            f"--service-account-signing-key-file={pki}/service-accounts.key",
            "--service-cluster-ip-range=10.100.0.0/16",
        ],
        "kube-controller-manager": [
            *serving,
            f"--secure-port={ports['kube-controller-manager']}",
            f"--kubeconfig={directory}/controllers.kubeconfig",
            f"--controllers={','.join(CONTROLLERS)}",
            "--leader-elect=false",
        ],
    }


def _issue(pki: Path, name: str, user: str, groups: Sequence[str] = ()) -> None:
    """Writes a certificate and its key: the authority's own, the servers', or else a client's."""
    key = ec.generate_private_key(ec.SECP256R1())
    # Kubernetes reads the user from CN and the groups from O.
    names = [(NameOID.ORGANIZATION_NAME, group) for group in groups] + [(NameOID.COMMON_NAME, user)]
    with warnings.catch_warnings(action="ignore"):  # X.520 allows 64 letters, Kubernetes more: an ARN is longer
        subject = issuer = x509.Name([x509.NameAttribute(oid, value, _validate=False) for oid, value in names])
    signer = key
    if name != "ca":
        issuer = x509.load_pem_x509_certificate((pki / "ca.crt").read_bytes()).subject
        signer = serialization.load_pem_private_key((pki / "ca.key").read_bytes(), None)
    signer = cast(ec.EllipticCurvePrivateKey, signer)
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=3650))
        # The key identifiers and usages are what Python 3.13's stricter verification asks for.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
        .add_extension(_key_usage(signs=name == "ca"), critical=True)
    )
    if name == "server":
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        certificate = certificate.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    pem = certificate.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    _write_key(pki / f"{name}.key", key)
    _write_private(pki / f"{name}.crt", pem)


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(not signs, False, False, False, False, signs, signs, False, False)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    # Not PKCS #8: the API server reads the public half out of the traditional form only.
    pem, traditional = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
    _write_private(path, key.private_bytes(pem, traditional, serialization.NoEncryption()))


def _write_private(path: Path, content: bytes) -> None:
    """Writes the file whole or not at all, readable by its owner only."""
    unfinished = path.with_name(f".{path.name}-unfinished")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    os.replace(unfinished, path)


def _command_of(pid: int) -> str:
    """The command line of a process; nothing of one that has ended, whether its parent has noticed or not."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # leaves no zombie, if it was this process that started it
    if Path("/proc/self").exists():
        with suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
        return ""
    macos = ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)]
    return subprocess.run(macos, capture_output=True, text=True, check=False).stdout.strip()


def _free_ports(count: int) -> list[int]:
    """Ports below those that the system gives to outgoing connections, which could take one before it is used."""
    candidates = random.sample(range(20000, 32000), 1000)
    return list(islice(filter(_is_free, candidates), count))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True

"""The sandbox's Kubernetes API: the real etcd, kube-apiserver and kube-controller-manager, on loopback.

The servers outlive the process that starts them. All that belongs to them is in one directory, so one command can
start them and another stop them.
"""

import base64
import json
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Self

import yaml
from filelock import FileLock
from urllib3 import PoolManager
from urllib3.exceptions import HTTPError

from sandbox import certificates, daemons
from sandbox.binaries import binaries
from sandbox.daemons import Daemon

READY_WITHIN = 60  # seconds; two or three are usual
HEALTH = {"etcd": "/health", "kube-apiserver": "/readyz", "kube-controller-manager": "/healthz"}
SERVERS = tuple(HEALTH)
SERVING = "--bind-address=127.0.0.1 --tls-cert-file={pki}/server.crt --tls-private-key-file={pki}/server.key"
# etcd: what a crash of the machine loses here is no loss. The endpoint reconciler refuses a loopback address.
# Controllers: the fewest with which deleted objects go away, and the aggregated roles `admin`, `edit` and `view` have
# rules. Nothing runs Pods.
FLAGS = {
    "etcd": """--data-dir={directory}/etcd --listen-client-urls={etcd} --advertise-client-urls={etcd}
        --listen-peer-urls=http://127.0.0.1:0 --unsafe-no-fsync=true""",
    "kube-apiserver": f"""{SERVING} --secure-port={{port}} --advertise-address=127.0.0.1
        --endpoint-reconciler-type=none --etcd-servers={{etcd}} --client-ca-file={{pki}}/ca.crt
        --authorization-mode=RBAC --anonymous-auth=true --service-account-issuer=https://kubernetes.default.svc
        --service-account-key-file={{pki}}/server.key --service-account-signing-key-file={{pki}}/server.key
        --service-cluster-ip-range=10.100.0.0/16""",
    "kube-controller-manager": f"""{SERVING} --secure-port={{port}} --kubeconfig={{directory}}/controllers.kubeconfig
        --controllers=garbage-collector-controller,namespace-controller,clusterrole-aggregation-controller
        --leader-elect=false""",
}


class ControlPlaneError(Exception):
    """A server did not come up; the message ends with the last lines of its log."""


@dataclass(frozen=True)
class ControlPlane:
    """The control plane in ``directory``, running or not. As a context manager it is stopped at the end."""

    directory: Path

    @classmethod
    def start(cls, directory: Path, more: Sequence[str] = ()) -> Self:
        """Starts those servers that do not run. ``more`` are further flags of the API server.

        Started again in the same directory it has the objects, the certificates and, if they are still free, the
        ports of before: kubeconfigs stay valid.
        """
        plane = cls(directory.absolute())
        plane.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with plane._locked():
            if not plane.is_healthy():
                try:
                    plane._start(more)
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
        return f"https://127.0.0.1:{self._ports()['kube-apiserver']}"

    @property
    def ca_data(self) -> str:
        """The certificate of the cluster's authority as a kubeconfig and EKS give it: PEM in base64."""
        return _base64(self._pki / "ca.crt")

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig for ``system:masters``."""
        return self.directory / "kubeconfig"

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig for any user in any groups, authenticated by a certificate of the cluster's authority."""
        name = f"user-{sha256(json.dumps([user, *groups]).encode()).hexdigest()[:12]}"
        return self._write_kubeconfig(self.directory / f"{name}.kubeconfig", user, groups)

    def processes(self) -> dict[str, int]:
        """The process ids of the servers that run."""
        return {name: process.pid for name in SERVERS if (process := self._daemon(name).process())}

    def is_healthy(self) -> bool:
        """Whether all three servers run and say that they are ready."""
        return all(map(self._is_ready, SERVERS))

    def kill_api_server(self) -> None:
        """Ends the API server as a crash would; ``start`` starts it again. What it had confirmed is in etcd."""
        self._daemon("kube-apiserver").end(signal.SIGKILL)

    def _locked(self) -> FileLock:
        return FileLock(self.directory / "lock")

    def _start(self, more: Sequence[str]) -> None:
        programs, ports = binaries(*SERVERS), self._ports()
        if not (self._pki / "server.crt").exists():  # the last to be written
            self._pki.mkdir(exist_ok=True, mode=0o700)
            certificates.issue(self._pki, "ca", "sandbox")
            certificates.issue(self._pki, "server", "sandbox-server")
        if not ports or not (self.processes() or all(map(daemons.is_free, ports.values()))):
            ports = dict(zip(SERVERS, daemons.free_ports(len(SERVERS)), strict=True))
            (self.directory / "ports.json").write_text(json.dumps(ports))
        self._write_kubeconfig(self.kubeconfig, "sandbox-admin", ["system:masters"])
        controllers = self.directory / "controllers.kubeconfig"
        self._write_kubeconfig(controllers, "system:kube-controller-manager", ["system:masters"])

        # Not all of our environment: etcd takes any of its options from there.
        environment = {"HOME": str(self.directory), "PATH": os.environ.get("PATH", "")}
        values = {"directory": self.directory, "pki": self._pki, "etcd": f"http://127.0.0.1:{ports['etcd']}"}
        for name in SERVERS:
            if not self._is_ready(name):
                flags = [flag.format(**values, port=ports[name]) for flag in FLAGS[name].split()]
                self._daemon(name).end()
                more_flags = more if name == "kube-apiserver" else ()
                self._daemon(name).start([str(programs[name]), *flags, *more_flags], environment)
                self._wait(name)

    def _stop(self) -> None:
        for name in reversed(SERVERS):
            self._daemon(name).end()

    def _daemon(self, name: str) -> Daemon:
        return Daemon(self.directory, name)

    def _wait(self, name: str) -> None:
        deadline, daemon = time.monotonic() + READY_WITHIN, self._daemon(name)
        while not self._is_ready(name):
            ended = not daemon.process()
            if ended or time.monotonic() > deadline:
                problem = "ended before it was ready" if ended else f"was not ready after {READY_WITHIN} s"
                tail = "\n".join(daemon.log.read_text(errors="replace").splitlines()[-20:])
                raise ControlPlaneError(f"{name} {problem}; the end of {daemon.log}:\n{tail}")
            time.sleep(0.05)

    def _is_ready(self, name: str) -> bool:
        if not self._daemon(name).process():
            return False
        url = f"{'http' if name == 'etcd' else 'https'}://127.0.0.1:{self._ports()[name]}{HEALTH[name]}"
        with suppress(OSError, HTTPError), PoolManager(ca_certs=str(self._pki / "ca.crt")) as pool:
            return pool.request("GET", url, retries=False, timeout=5).status == 200
        return False

    @property
    def _pki(self) -> Path:
        return self.directory / "pki"

    def _ports(self) -> dict[str, int]:
        file = self.directory / "ports.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def _write_kubeconfig(self, path: Path, user: str, groups: Sequence[str]) -> Path:
        certificates.issue(self._pki, path.stem, user, groups)
        cluster = {"server": self.server, "certificate-authority-data": self.ca_data}
        certificate, key = (_base64(self._pki / f"{path.stem}.{kind}") for kind in ("crt", "key"))
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "sandbox", "cluster": cluster}],
            "users": [{"name": user, "user": {"client-certificate-data": certificate, "client-key-data": key}}],
            "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": user}}],
            "current-context": "sandbox",
        }
        certificates.write_private(path, yaml.safe_dump(config, sort_keys=False).encode())
        return path


def _base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()

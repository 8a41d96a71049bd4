"""The sandbox's Kubernetes API: the real etcd, kube-apiserver and kube-controller-manager, on loopback.

The servers outlive the process that starts them: one command brings them up, another
stops them. All about them (certificates, data, logs, which processes they are) is in
one directory, so that the directory is all that the second command needs to know.
"""

import base64
import http.client
import json
import os
import signal
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Self

import yaml
from filelock import FileLock

from sandbox import certificates, daemons
from sandbox.binaries import binaries

READY_WITHIN = 60  # seconds; two or three are usual
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
    def start(cls, directory: Path, more: Sequence[str] = ()) -> Self:
        """Brings up the control plane of that directory, or returns the one that runs there already.

        ``more`` are further flags of the API server.

        Started again in the same directory it has the objects, the certificates and, if
        they are still free, the ports of before: kubeconfigs stay valid.
        """
        plane = cls(directory.absolute())
        plane.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with plane._locked():
            if not plane.is_healthy():
                plane._stop()
                try:
                    plane._start(binaries(*SERVERS), more)
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

    def _start(self, programs: dict[str, Path], more: Sequence[str]) -> None:
        if not (self._pki / "service-accounts.key").exists():  # the last to be written
            self._pki.mkdir(exist_ok=True, mode=0o700)
            certificates.issue(self._pki, "ca", "sandbox")
            certificates.issue(self._pki, "server", "sandbox-server")
            certificates.write_key(self._pki / "service-accounts.key", certificates.new_key())
        ports = self._state()["ports"]
        if not ports or not all(map(daemons.is_free, ports.values())):
            ports = dict(zip(SERVERS, daemons.free_ports(len(SERVERS)), strict=True))
        self._save({"ports": ports, "commands": {}, "pids": {}})
        self._write_kubeconfig(self.kubeconfig, "admin", "sandbox-admin", ["system:masters"])
        controllers = self.directory / "controllers.kubeconfig"
        self._write_kubeconfig(controllers, "controllers", "system:kube-controller-manager", ["system:masters"])

        for name, flags in _flags(self.directory, ports).items():
            self._launch(name, [str(programs[name]), *flags, *(more if name == "kube-apiserver" else ())])
            self._wait(name)

    def _stop(self) -> None:
        for name in reversed(SERVERS):
            self._end(name)

    def _launch(self, name: str, command: list[str]) -> None:
        # Not all of our environment: etcd takes any of its options from there.
        environment = {"HOME": str(self.directory), "PATH": os.environ.get("PATH", "")}
        pid = daemons.start(command, self.directory / f"{name}.log", environment)
        state = self._state()
        state["commands"][name], state["pids"][name] = command, pid
        self._save(state)

    def _end(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        state = self._state()
        daemons.end(state["pids"].get(name), state["commands"].get(name, []), how)

    def _pid(self, name: str) -> int | None:
        """The server's process id, if it runs. Never that of another program that was given the same id since."""
        state = self._state()
        pid = state["pids"].get(name)
        return pid if daemons.runs(pid, state["commands"].get(name, [])) else None

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
        certificates.write_private(self.directory / "state.json", json.dumps(state, indent=2).encode())

    def _write_kubeconfig(self, path: Path, name: str, user: str, groups: Sequence[str]) -> Path:
        certificates.issue(self._pki, name, user, groups)
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
        certificates.write_private(path, yaml.safe_dump(config, sort_keys=False).encode())
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

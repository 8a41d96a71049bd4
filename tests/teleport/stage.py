"""A proxy with the real Teleport on the boot rig's host, and whom it talks to: a cluster, GitHub, people."""

import base64
import contextlib
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from werkzeug import Request, Response

from fleet import who
from sandbox.binaries import binaries
from sandbox.control_plane import ControlPlane
from teleport_eks.address import sign_in_command
from teleport_eks.cluster import MappedCluster
from teleport_eks.proxy import TeleportProxy, TeleportProxyArgs
from teleport_eks.settings import parse
from tests.boot.rig import GITHUB, Host, Rig, Run, Volume, World
from tests.examples import CLUSTER, SITE
from tests.recorder import plain, record
from tests.teleport.github import GitHub
from tests.teleport.people import Person

WEBHOOK, KUBELET = 8101, 10250


def team(slug: str, **more: Any) -> dict[str, Any]:
    return {"organization": "acme", "team": slug, **more}


def developers(slug: str) -> dict[str, Any]:
    return team(slug, kubernetesGroups=[slug], clusterRole="edit", namespaces=["shop"])


# Always there: who may do something in one namespace, who may look everywhere, and who has no right in the cluster.
TEAMS = developers("dev"), team("ops", kubernetesGroups=["ops"], clusterRole="view"), team("audit", auditor=True)
# What the program calls the proxy, given the address that tests/recorder.py gives it.
NAME = "ec2-203-0-113-10.nip.io"
PARAMETER = "aws:ssm/parameter:Parameter"
# No manifest of a cluster that has nodes looks like this, but it is all that `kubectl exec` asks for.
OBJECTS: list[dict[str, Any]] = [
    {"kind": "Node", "metadata": {"name": "node"}},
    *({"kind": "Namespace", "metadata": {"name": name}} for name in ("shop", "bank")),
    *({"kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}} for name in ("shop", "bank")),
    {
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"nodeName": "node", "containers": [{"name": "web", "image": "web"}]},
    },
]
NODE_STATUS = {
    "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
    "daemonEndpoints": {"kubeletEndpoint": {"Port": KUBELET}},
}


def review_token(request: Request) -> Response:
    """EKS's part of the API server: whose a token of `aws eks get-token` is. Here all are the proxy's role's."""
    review = request.get_json()
    kind, _, encoded = review["spec"]["token"].partition(".")
    presigned = base64.urlsafe_b64decode(encoded + "==").decode(errors="replace") if kind == "k8s-aws-v1" else ""
    review["status"] = {"authenticated": False}
    if "Action=GetCallerIdentity" in presigned:
        user = {"username": SITE.names.username, "groups": [SITE.names.group]}
        review["status"] = {"authenticated": True, "user": user}
    return Response(json.dumps(review), content_type="application/json")


class Site:
    """``teleport`` is an unpacked release. Close it to end all that runs."""

    def __init__(self, folder: Path, teleport: Path) -> None:
        self.folder = folder
        self.kubectl = binaries("kubectl")["kubectl"]
        kubelet = binaries("exec-kubelet")["exec-kubelet"]
        self._tools = [teleport, self.kubectl.parent]
        self._declared: dict[tuple[str, str, str, str], dict] = {}
        self.additional: dict[str, ControlPlane] = {}
        with contextlib.ExitStack() as ends:
            (folder / "world").mkdir()
            self.world = World(folder / "world")
            ends.callback(self.world.close)
            self.world.folders += self._tools
            with self.world.beside() as address:  # because 443 may be Teleport's own
                self.world.serve("github", GitHub.answer, 443, tls=True, address=address)
            self.world.serve("eks", review_token, WEBHOOK)

            self.plane = self.start_control_plane()
            ends.callback(self.plane.stop)
            self.world.cluster.endpoint = self.plane.server
            self.world.cluster.certificate_authority = {"data": self.plane.ca_data}
            pki = self.plane.directory / "pki"
            self.world.spawn(kubelet, f"127.0.0.1:{KUBELET}", pki / "server.crt", pki / "server.key")
            self.admin("apply", "-f", "-", objects=[{"apiVersion": "v1", **item} for item in OBJECTS])
            self._status("node/node", NODE_STATUS)
            self._status("pod/web", {"phase": "Running"}, "--namespace=shop")

            self.publish(teleport)
            self.rig = Rig(self.world, folder, 0)
            ends.callback(self.rig.close)
            self.declare()
            self.volume = self.rig.volume()
            self.host = self.new_host()
            self.laptop = Host(self.world, "laptop", self.host.config)
            self.laptop.power_on()
            ends.callback(self.laptop.power_off)
            self.laptop.configure()  # for what it trusts
            self._name_servers(self.laptop)
            self.close = ends.pop_all().close

    def first_boot(self) -> None:
        """Nobody is there to press a button: the units are started as systemd would."""
        self.boot = self.host.start("teleport-bootstrap", timeout=120)
        started = self.pid()
        self.host.start("teleport-certificate", timeout=120)
        self.host.wait_trusted()
        self.restarted = self.pid() != started

    # -- the host ----------------------------------------------------------------------------------

    def publish(self, release: Path) -> None:
        """New hosts download this release from now on."""
        self.version = self.world.publish_release(release)

    def new_host(self, volume: Volume | None = None, /, **changes: str | None) -> Host:
        """An instance with the stack's user data, in which no unit was started. Its data is on the site's volume."""
        host = self.rig.host(volume or self.volume, hostname=NAME, teleport_version=self.version, **changes)
        # The real Teleport needs more time than the stand-ins, whose times these are.
        host.configure(STALL_TIME="60", READY_WAIT="60", AWS_TIME="60", COMMAND_TIME="60", CERTBOT_TIME="60")
        self._name_servers(host)
        return host

    def up(self, *teams: dict[str, Any], **config: str) -> Run:
        """`pulumi up` for these teams and those that are always there; the host follows."""
        self.declare(*TEAMS, *teams, **config)
        run = self.access()
        assert run.code == 0, run
        return run

    def access(self) -> Run:
        """What the timer does each minute."""
        return self.host.start("teleport-access", timeout=120)

    def pid(self) -> str:
        return self.host.read("/run/teleport.pid")

    def kill_teleport(self) -> None:
        """Kills Teleport with -9, and starts it as systemd does."""
        self.host.sh("systemctl restart teleport.service")
        self.host.wait_trusted()

    def authority(self) -> str:
        """Which authority signs what Teleport issues."""
        return self.tctl("status").partition("CA pins")[2]

    def tctl(self, *arguments: str) -> str:
        return self.on_host(f"tctl --config=/etc/teleport.yaml {' '.join(arguments)}")

    def on_host(self, commands: str) -> str:
        """As root, as in a session of Session Manager."""
        return self.host.sh(f"set -e; export SSL_CERT_FILE=/etc/rig-trusted.pem\n{commands}")

    def look(self, *teams: dict[str, Any], **config: str) -> dict[str, dict[str, Any]]:
        """What `make who` reports for a stack's file with these teams and those that are always there.

        By role, person, lock and bot.
        """
        stack, given = self.host.config.stack, json.dumps([*TEAMS, *teams])
        stored = who.parameters(self.world.aws("ssm"), stack)
        settings = parse({"clusterName": "demo", "acmeEmail": "ops@example.org", "teams": given, **config}, stack)
        found = who.report(settings, stack, stored, who.read(self.on_host(who.COMMAND)))
        return {kind: {list(item.values())[kind == "teams"]: item for item in found[kind]} for kind in list(found)[1:]}

    # -- the stack and the cluster -----------------------------------------------------------------

    def declare(self, *teams: dict[str, Any], **more: str) -> None:
        """Brings SSM and the cluster to what the program declares for these teams, as `pulumi up` would."""
        config = {"clusterName": "demo", "acmeEmail": "ops@example.org", "teams": json.dumps(teams), **more}
        if teams:
            config |= {"githubClientId": GitHub.client_id, "githubClientSecret": GitHub.client_secret}
        clusters = [
            MappedCluster(
                replace(CLUSTER, name=name, endpoint=plane.server, certificate_authority=plane.ca_data),
                "access-entry",
                f"-{name}",
            )
            for name, plane in self.additional.items()
            if name in config.get("additionalClusters", "")
        ]
        where = replace(SITE, clusters=(*SITE.clusters, *clusters))
        proxy = TeleportProxyArgs(f"s{self.rig.number}", parse(config, "s0"), where)
        declared = record(lambda: TeleportProxy("teleport", proxy))
        objects: dict[tuple[str, str, str, str], dict] = {}
        for resource in declared.resources:
            if match := re.match(r"kubernetes:(.+/v\d+):(\w+)$", resource.typ):
                item = {"apiVersion": match[1], "kind": match[2], **plain(resource.inputs)}
                provider = declared.requests[resource.name].provider.split("::")[-2]
                cluster = provider.removeprefix("teleport-cluster").removeprefix("-")
                objects[cluster, match[2], item["metadata"].get("namespace", ""), item["metadata"]["name"]] = item
        for cluster in ("", *self.additional):
            if items := [item for key, item in objects.items() if key[0] == cluster]:
                self.admin("apply", "-f", "-", objects=items, cluster=cluster)
        for cluster, kind, namespace, name in self._declared.keys() - objects.keys():
            where_it_is = [f"--namespace={namespace}"] if namespace else []
            self.admin("delete", kind, name, *where_it_is, cluster=cluster)
        self._declared = objects
        path, parameters = f"/teleport-eks/s{self.rig.number}", declared.of(PARAMETER) if teams else []
        texts = {
            item["name"].removeprefix(f"{path}/"): item.get("insecureValue") or item["value"] for item in parameters
        }
        self.world.set_parameters(path, texts)

    def admin(self, *arguments: str, objects: list[dict] | None = None, cluster: str = "") -> str:
        """kubectl as the administrator of the first cluster or of an additional one."""
        plane = self.additional[cluster] if cluster else self.plane
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}) if objects else ""
        command = self.world.command(self.kubectl, f"--kubeconfig={plane.kubeconfig}", *arguments)
        return subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=True).stdout

    def _status(self, item: str, status: dict, *more: str) -> None:
        self.admin("patch", item, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}), *more)

    def start_control_plane(self, folder: str = "control-plane") -> ControlPlane:
        webhook = {
            "clusters": [{"name": "eks", "cluster": {"server": f"http://127.0.0.1:{WEBHOOK}/"}}],
            "contexts": [{"name": "eks", "context": {"cluster": "eks", "user": "api"}}],
            "current-context": "eks",
            "users": [{"name": "api"}],
        }
        file = self.folder / "webhook.json"
        file.write_text(json.dumps(webhook))
        whose = "--authentication-token-webhook"
        flags = [f"{whose}-config-file={file}", f"{whose}-version=v1"]
        return ControlPlane.start(self.folder / folder, flags)

    # -- people --------------------------------------------------------------------------------------

    def person(self, login: str, *teams: tuple[str, str]) -> Person:
        """Somebody who is in these teams on GitHub."""
        GitHub.teams[login] = list(teams)
        return Person(self.laptop, login, sign_in_command(self.host.config.settings, NAME), self._tools)

    def _name_servers(self, host: Host) -> None:
        host.write("/etc/hosts", f"127.0.0.1 localhost {NAME}\n192.0.2.2 {' '.join(GITHUB)}\n")

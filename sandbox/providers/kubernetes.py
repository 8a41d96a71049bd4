"""The Kubernetes provider: any object that the API server knows, by server-side apply."""

import functools
import os
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client import ApiClient, ApiException
from kubernetes.config import new_client_from_config_dict
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import DynamicApiError, NotFoundError

from sandbox.providers.server import Kind, Props, Provider
from sandbox.providers.server import serve as serve_provider

MANAGER = "teleport-eks-sandbox"
# What the server writes into an object by itself.
SERVERS_OWN = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid")


class Cluster:
    """The cluster of one provider resource, or the directory that it writes its objects to."""

    config: Props

    @functools.cached_property
    def client(self) -> DynamicClient:
        given = self.config.get("kubeconfig") or os.environ.get("KUBECONFIG") or "~/.kube/config"
        text = given if "\n" in given or given.startswith("{") else Path(given).expanduser().read_text()
        api: ApiClient = new_client_from_config_dict(yaml.safe_load(text))
        return DynamicClient(api)

    def resource(self, props: Props) -> Any:
        return self.client.resources.get(api_version=props["apiVersion"], kind=props["kind"])

    def apply(self, props: Props) -> str:
        name, namespace = props["metadata"]["name"], props["metadata"].get("namespace")
        if directory := self.config.get("renderYamlToDirectory"):
            file = Path(directory, "1-manifest", f"{props['kind']}-{namespace or 'default'}-{name}.yaml".lower())
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(yaml.safe_dump(props))
        else:
            force = self.config.get("enablePatchForce") in (True, "true")
            self.client.server_side_apply(
                self.resource(props), props, name, namespace, field_manager=MANAGER, force_conflicts=force
            )
        return f"{namespace}/{name}" if namespace else name

    def create(self, props: Props) -> str:
        # As the real provider does: what is there already is somebody's.
        if not self.config.get("renderYamlToDirectory"):
            name, namespace = props["metadata"]["name"], props["metadata"].get("namespace")
            try:
                self.resource(props).get(name=name, namespace=namespace)
            except NotFoundError:
                return self.apply(props)
            raise RuntimeError(f"{props['kind']} {name} is there already")
        return self.apply(props)

    def read(self, object_id: str, props: Props) -> Props | None:
        if self.config.get("renderYamlToDirectory"):
            return props
        namespace, _, name = object_id.rpartition("/")
        found = self.resource(props).get(name=name, namespace=namespace or None).to_dict()
        metadata = {k: v for k, v in found["metadata"].items() if k not in SERVERS_OWN}
        # Defaults of the server's are no difference: only what the program says is compared.
        given = props.get("metadata")
        return {**found, "metadata": {k: metadata.get(k) for k in given} if given else metadata}

    def delete(self, object_id: str, props: Props) -> None:
        if not self.config.get("renderYamlToDirectory"):
            namespace, _, name = object_id.rpartition("/")
            self.resource(props).delete(name=name, namespace=namespace or None)

    def find(self, token: str) -> Kind:
        api_version, kind = token.removeprefix("kubernetes:").rsplit(":", 1)
        known = {"apiVersion": api_version.removeprefix("core/"), "kind": kind}
        return Kind(
            create=lambda p: self.create({**known, **p}),
            read=lambda i, p: self.read(i, {**known, **p}),
            delete=lambda i, p: self.delete(i, {**known, **p}),
            update=lambda _id, _old, new: self.apply({**known, **new}),
            replaces=("metadata.name", "metadata.namespace", "roleRef", "apiVersion", "kind"),
        )


def serve(server: Any) -> None:
    cluster = Cluster()
    serve_provider(
        server,
        Provider(
            "pulumi_kubernetes",
            find=cluster.find,
            configure=lambda config: setattr(cluster, "config", config),
            errors=(DynamicApiError, ApiException),
            is_gone=lambda error: getattr(error, "status", None) == 404,
        ),
    )

"""The Kubernetes provider: any object that the API server knows, by server-side apply."""

import functools
from pathlib import Path

import yaml
from kubernetes.config import new_client_from_config, new_client_from_config_dict
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import DynamicApiError

from sandbox.providers import server
from sandbox.providers.server import Kind, Props

REPLACES = ("metadata.name", "metadata.namespace", "roleRef", "apiVersion", "kind")


class Provider(server.Provider):
    package, errors = "pulumi_kubernetes", (DynamicApiError,)

    def configure(self, config: Props) -> None:
        self.config = config
        self.folder: str | None = config.get("renderYamlToDirectory")

    def is_gone(self, error: Exception) -> bool:
        return getattr(error, "status", None) == 404

    @functools.cached_property
    def client(self) -> DynamicClient:
        text = self.config.get("kubeconfig")  # else whoever runs Pulumi has one
        return DynamicClient(new_client_from_config_dict(yaml.safe_load(text)) if text else new_client_from_config())

    def kind(self, token: str) -> Kind:
        api_version, _, kind = token.removeprefix("kubernetes:").rpartition(":")
        known = {"apiVersion": api_version.removeprefix("core/"), "kind": kind}

        def call(verb: str, object_id: str, **arguments: Props | str | bool) -> Props:
            namespace, _, name = object_id.rpartition("/")
            resource = self.client.resources.get(api_version=known["apiVersion"], kind=kind)
            return getattr(resource, verb)(name=name, namespace=namespace or None, **arguments).to_dict()

        def apply(object_id: str, _old: Props, new: Props) -> None:
            if self.folder:
                file = Path(self.folder, "1-manifest", f"{kind}-{object_id.replace('/', '-')}.yaml".lower())
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(yaml.safe_dump({**known, **new}))
                return
            force = self.config.get("enablePatchForce") in (True, "true")
            manager = {"field_manager": "pulumi-kubernetes-sandbox", "force_conflicts": force}
            call("server_side_apply", object_id, body={**known, **new}, **manager)

        def create(props: Props) -> str:
            metadata = props["metadata"]
            object_id = "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
            if not self.folder and self._read(self.kind(token), object_id, props):
                raise LookupError(f"{kind} {object_id} is there already, and not this stack's")
            apply(object_id, {}, props)
            return object_id

        def read(object_id: str, props: Props) -> Props:
            if self.folder:
                return {}
            found = call("get", object_id)
            # Of what the server adds, nothing is compared.
            wanted = props.get("metadata") or {"name": "", **({"namespace": ""} if "/" in object_id else {})}
            return {**found, "metadata": {key: found["metadata"].get(key) for key in wanted}}

        def delete(object_id: str, _props: Props) -> None:
            if not self.folder:
                call("delete", object_id)

        return Kind(create, read, delete, apply, replaces=REPLACES)

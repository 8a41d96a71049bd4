"""What Teleport 17 and 18 both accept, as far as this project uses it.

Teleport does not start if its configuration has an unknown, misplaced or repeated key. `teleport_keys.json` lists the
keys of `lib/config/fileconf.go` that both versions know, and the keys of resources. The rules between keys are those of
`lib/config/configuration.go`. The unit tests use this module, and so does the stand-in Teleport of the boot rig.
"""

import json
from pathlib import Path
from typing import Any

import yaml

KEYS: dict[str, list[str]] = json.loads(Path(__file__).with_name("teleport_keys.json").read_text())
# Below these the keys are the user's own.
FREE = ("labels", "node_labels", "kubernetes_labels", "extra_fields", "idp", "ui", "pam", "ca_key_params", "aws")
KINDS = ("role", "github", "bot", "token", "kube_cluster", "lock", "health_check_config")
FLAGS = {"yes", "no", "true", "false", "on", "off"}


class _Loader(yaml.SafeLoader):
    """Like Go's strict reader, refuses a key that comes twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"line {node.start_mark.line + 1}: key {key!r} comes twice")
        return super().construct_mapping(node, deep)


def load(text: str) -> Any:
    return yaml.load(text, _Loader)  # noqa: S506  a SafeLoader


def unknown_keys(value: Any, at: str) -> list[str]:
    """The paths of all keys below ``at`` (a key of ``teleport_keys.json``) that are not listed there."""
    if isinstance(value, list):
        return [error for item in value for error in unknown_keys(item, f"{at}[]")]
    if not isinstance(value, dict) or at.rpartition(".")[2] in FREE:
        return []
    if at not in KEYS:
        return [f"{at} may not be a map"]
    prefix = "" if at == "root" else f"{at}."
    errors = [f"{prefix}{key} is not known" for key in value if key not in KEYS[at]]
    return errors + [
        e for key, below in value.items() if key in KEYS[at] for e in unknown_keys(below, f"{prefix}{key}")
    ]


def check_config(text: str) -> list[str]:
    """What Teleport would refuse in this teleport.yaml. Empty if nothing."""
    try:
        config = load(text)
    except yaml.YAMLError as error:
        return [f"failed parsing the config file: {error}"]
    if not isinstance(config, dict):
        return ["not a map"]
    services: dict[str, dict] = {name: config.get(name) or {} for name in KEYS["root"] if name.endswith("_service")}
    auth, proxy, kube = services["auth_service"], services["proxy_service"], services["kubernetes_service"]
    ports = [
        value for keys in services.values() for key, value in keys.items() if key.endswith("listen_addr") and value
    ]
    rules = {
        "version must be v3": config.get("version") != "v3",
        "proxy_service.kube_public_addr needs kube_listen_addr": "kube_public_addr" in proxy
        and "kube_listen_addr" not in proxy,
        "proxy_service.kubernetes and kube_listen_addr exclude each other": "kubernetes" in proxy
        and not proxy.keys().isdisjoint({"kube_listen_addr", "kube_public_addr"}),
        "proxy_service.acme and https_keypairs exclude each other": {"acme", "https_keypairs"} <= proxy.keys(),
        "proxy_service.public_addr must be one address": isinstance(proxy.get("public_addr"), list),
        "kubernetes_service.listen_addr is required in the proxy's own process": kube and "listen_addr" not in kube,
        "proxy_server is for hosts without a proxy service": "proxy_server" in (config.get("teleport") or {}),
    }
    if auth.get("proxy_listener_mode") == "separate":
        # v3 opens no listener by itself, and the clients of this mode look for all of them.
        for key in ("web_listen_addr", "listen_addr", "tunnel_listen_addr", "kube_listen_addr"):
            rules[f"proxy_service.{key} is needed in separate mode"] = key not in proxy
    for name, service in services.items():
        # Teleport takes a value that is no flag for a no.
        is_flag = str(service.get("enabled")).lower() in FLAGS
        rules[f"{name}.enabled must be written, as yes or no"] = service and not is_flag
    for address in ports:
        rules[f"{address} is listened on twice"] = ports.count(address) > 1
    return unknown_keys(config, "root") + [text for text, is_broken in rules.items() if is_broken]


def check_resource(resource: Any) -> list[str]:
    """What `tctl create` would refuse in this resource. Only tests/teleport has all rules."""
    kind, name = resource.get("kind"), (resource.get("metadata") or {}).get("name")
    if kind not in KINDS or not name:
        return [f"{kind} {name!r} is not a named resource of a known kind"]
    versions = {"role": "v7", "github": "v3"}  # Teleport 17 and 18 both take these
    wrong = resource.get("version") != versions.get(kind, resource.get("version"))
    return unknown_keys(resource, kind) + ([f"{kind}: version must be {versions[kind]}"] if wrong else [])

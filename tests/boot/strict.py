"""What Teleport 17 and 18 both accept, as far as this project uses it.

Teleport reads its configuration with a strict parser: an unknown, misplaced or repeated key stops
it. `teleport_keys.json` lists the keys of `lib/config/fileconf.go` that both versions know (keys
newer than 17 are left out), and of roles and GitHub connectors. The rules between keys are those of
`lib/config/configuration.go`. Used by the unit tests, and by the stand-in Teleport of the boot rig.
"""

import json
from pathlib import Path
from typing import Any

import yaml

KEYS: dict[str, list[str]] = json.loads(Path(__file__).with_name("teleport_keys.json").read_text())
# Below these the keys are the user's own.
FREE = ("labels", "node_labels", "kubernetes_labels", "extra_fields", "idp", "ui", "pam", "ca_key_params", "aws")
KINDS = ("role", "github", "lock", "health_check_config")
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
    """What Teleport would refuse in this teleport.yaml; empty when nothing."""
    try:
        config = load(text)
    except yaml.YAMLError as error:
        return [f"failed parsing the config file: {error}"]
    if not isinstance(config, dict):
        return ["not a map"]
    errors = unknown_keys(config, "root")
    services = {name: config.get(name) or {} for name in KEYS["root"] if name.endswith("_service")}
    auth, proxy, kube = services["auth_service"], services["proxy_service"], services["kubernetes_service"]
    for name, service in services.items():
        # A flag that does not parse silently means no.
        if service and str(service.get("enabled")).lower() not in FLAGS:
            errors.append(f"{name}.enabled must be written, as yes or no")
    if config.get("version") != "v3":
        errors.append("version must be v3")
    if "kube_public_addr" in proxy and "kube_listen_addr" not in proxy:
        errors.append("proxy_service.kube_public_addr needs kube_listen_addr")
    if "kubernetes" in proxy and ("kube_listen_addr" in proxy or "kube_public_addr" in proxy):
        errors.append("proxy_service.kubernetes and kube_listen_addr exclude each other")
    if "acme" in proxy and "https_keypairs" in proxy:
        errors.append("proxy_service.acme and https_keypairs exclude each other")
    if isinstance(proxy.get("public_addr"), list):
        errors.append("proxy_service.public_addr must be one address")
    if kube and "listen_addr" not in kube:
        errors.append("kubernetes_service.listen_addr is required in the proxy's own process")
    if {"auth_server", "proxy_server"} & set(config.get("teleport") or {}):
        errors.append("auth_server and proxy_server are for hosts without an auth service")
    if auth.get("proxy_listener_mode") == "separate":
        # v3 opens no listener by itself, and the clients of a separate mode look for all of them.
        for key in ("web_listen_addr", "listen_addr", "tunnel_listen_addr", "kube_listen_addr"):
            if key not in proxy:
                errors.append(f"proxy_service.{key} is needed in separate mode")
    ports = [
        value
        for service in services.values()
        for key, value in service.items()
        if key.endswith("listen_addr") and value
    ]
    errors += [f"{address} is listened on twice" for address in sorted(set(ports)) if ports.count(address) > 1]
    return errors


def check_resource(resource: Any) -> list[str]:
    """What `tctl create` of Teleport 18.8 would refuse in this resource."""
    kind = resource.get("kind") if isinstance(resource, dict) else None
    if kind not in KINDS:
        return [f"kind {kind!r} is not known"]
    errors = unknown_keys(resource, kind)
    if not (resource.get("metadata") or {}).get("name"):
        errors.append("metadata.name is missing")
    spec = resource.get("spec") or {}
    if kind == "role":
        if resource.get("version") != "v7":
            errors.append("role: version must be v7, which Teleport 17 and 18 both take")
        allow = spec.get("allow") or {}
        if allow.get("kubernetes_resources") and not (allow.get("kubernetes_groups") or allow.get("kubernetes_users")):
            errors.append("role: kubernetes_resources needs a group or a user")
        for item in allow.get("kubernetes_resources") or []:
            if not item.get("verbs"):
                errors.append("role: kubernetes_resources without verbs match nothing")
        return errors
    if kind == "lock" and not spec.get("target"):
        errors.append("lock: spec.target is missing")
    if kind != "github":
        return errors
    if resource.get("version") != "v3":
        errors.append("github: version must be v3")
    for key in ("client_id", "client_secret", "redirect_url", "teams_to_roles"):
        if not spec.get(key):
            errors.append(f"github: spec.{key} is missing")
    for mapping in spec.get("teams_to_roles") or []:
        if not (mapping.get("organization") and mapping.get("team") and mapping.get("roles")):
            errors.append("github: teams_to_roles needs organization, team and roles")
    return errors

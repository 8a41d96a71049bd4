"""What the host runs, and how it is put into EC2 user data.

``files/`` holds everything as it lands on the host. Only three of them are templates; whatever else
differs between stacks is in one environment file, so that the units and scripts can be checked
exactly as they run.
"""

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2
import zopfli.gzip

LIMIT = 16_384  # bytes of user data before base64; EC2's own limit

_FILES = Path(__file__).parent / "files"
_SCRIPTS = "/usr/local/lib/teleport-eks"
_UNITS = "/etc/systemd/system"

# file in files/ -> (path on the host, permissions)
_STATIC = {
    "automatic.conf": ("/etc/dnf/automatic.conf", "0644"),
    "teleport.service": (f"{_UNITS}/teleport.service", "0644"),
    "teleport-bootstrap.service": (f"{_UNITS}/teleport-bootstrap.service", "0644"),
    "teleport-certificate.service": (f"{_UNITS}/teleport-certificate.service", "0644"),
    "teleport-certificate.timer": (f"{_UNITS}/teleport-certificate.timer", "0644"),
    "teleport-access.service": (f"{_UNITS}/teleport-access.service", "0644"),
    "teleport-access.timer": (f"{_UNITS}/teleport-access.timer", "0644"),
    "teleport-maintenance.service": (f"{_UNITS}/teleport-maintenance.service", "0644"),
    "teleport-maintenance.timer": (f"{_UNITS}/teleport-maintenance.timer", "0644"),
    "common.sh": (f"{_SCRIPTS}/common.sh", "0644"),
    "bootstrap": (f"{_SCRIPTS}/bootstrap", "0755"),
    "certificate": (f"{_SCRIPTS}/certificate", "0755"),
    "dns-challenge": (f"{_SCRIPTS}/dns-challenge", "0755"),
    "access": (f"{_SCRIPTS}/access", "0755"),
    "maintenance": (f"{_SCRIPTS}/maintenance", "0755"),
}
_TEMPLATES = {
    "host.env.j2": ("/etc/teleport-eks/host.env", "0600"),
    "teleport.yaml.j2": ("/etc/teleport.yaml", "0600"),
}


@dataclass(frozen=True)
class HostConfig:
    """All that one host needs to know; none of it is secret.

    ``hostname`` is the proxy's public name, ``public_ip`` the Elastic IP it resolves to,
    ``volume_id`` the data volume (``vol-...``). Under ``parameters_path``
    (``/teleport-eks/<stack>``) the stack keeps in SSM: ``roles/<name>`` (String, one Teleport role
    as JSON), ``github-connector`` (String, the connector as JSON without its client secret) and
    ``github-client-secret`` (SecureString); none of them when GitHub is not configured.
    ``teleport_sha256`` of None means the digest that is published beside the release.
    ``maintenance_window`` is a day and a time in UTC, such as ``Sun 03:00``, or ``none``.
    ``dns_zone_id`` set means DNS-01 through that Route 53 zone, else HTTP-01 on port 80.
    """

    stack: str
    cluster_name: str
    region: str
    hostname: str
    public_ip: str
    volume_id: str
    parameters_path: str
    architecture: str  # "amd64" or "arm64", as in Teleport's file names
    teleport_version: str
    teleport_sha256: str | None
    acme_email: str
    acme_server: str
    maintenance_window: str = "none"
    dns_zone_id: str | None = None
    teleport_cdn: str = "https://cdn.teleport.dev"


class UserDataTooLargeError(ValueError):
    """The user data does not fit into EC2's limit, even compressed."""


def variables(config: HostConfig) -> dict[str, str]:
    """The host's environment file, as names and values."""
    values = {
        # Both the AWS CLI of the host (v2) and of the tests (v1) read this one.
        "AWS_DEFAULT_REGION": config.region,
        "STACK": config.stack,
        "CLUSTER_NAME": config.cluster_name,
        # Not HOSTNAME, which the shell sets itself.
        "PROXY_NAME": config.hostname,
        "PUBLIC_IP": config.public_ip,
        "VOLUME_ID": config.volume_id,
        "PARAMETERS_PATH": config.parameters_path,
        "TELEPORT_CDN": config.teleport_cdn,
        "TELEPORT_VERSION": config.teleport_version,
        "TELEPORT_ARCH": config.architecture,
        "TELEPORT_SHA256": config.teleport_sha256 or "",
        "ACME_EMAIL": config.acme_email,
        "ACME_SERVER": config.acme_server,
        "MAINTENANCE_WINDOW": config.maintenance_window,
        "DNS_ZONE_ID": config.dns_zone_id or "",
    }
    sources = [_source(name) for name in ("cloud-config.yaml.j2", *_TEMPLATES, *_STATIC)]
    digest = hashlib.sha256(json.dumps([values, sources]).encode()).hexdigest()
    return {**values, "REVISION": digest[:12]}


def revision(config: HostConfig) -> str:
    """A short name for all that this host runs: another one whenever its user data changes."""
    return variables(config)["REVISION"]


def files(config: HostConfig) -> dict[str, str]:
    """Every file that user data writes: path on the host -> text."""
    return {file["path"]: file["text"] for file in _entries(config)}


def cloud_config(config: HostConfig) -> str:
    """The cloud-config document, before base64 and compression."""
    return _render("cloud-config.yaml.j2", files=_entries(config))


def render(config: HostConfig) -> str:
    """The user data, base64 of gzip. A pure function: the same input gives the same bytes everywhere.

    Raises ``UserDataTooLargeError`` when it does not fit into EC2's limit.
    """
    return base64.b64encode(_compress(cloud_config(config), files(config))).decode()


def _compress(document: str, parts: Mapping[str, str], limit: int = LIMIT) -> bytes:
    # Not zlib: its output can always be read back, but it is not the same everywhere. Python builds with zlib-ng
    # compress differently, and other bytes would replace the host. zopfli is pinned to one version in pyproject.toml
    # for that reason. It writes no time and no name; more iterations take longer and save 6 bytes.
    packed = zopfli.gzip.compress(document.encode(), numiterations=5)
    if len(packed) <= limit:
        return packed
    largest = max(parts, key=lambda path: (len(parts[path].encode()), path))
    raise UserDataTooLargeError(
        f"user data is {len(packed):,} bytes compressed, {len(packed) - limit:,} more than the {limit:,} that EC2 "
        f"takes; the largest file in it is {largest} with {len(parts[largest].encode()):,} bytes"
    )


def _entries(config: HostConfig) -> list[dict[str, str]]:
    values = variables(config)
    for name, value in values.items():
        # One line per value in the environment file; anything else would be read as another line.
        if not value.isprintable():
            raise ValueError(f"{name} holds a character that does not print: {value!r}")
    entries = [
        # So that dnf-automatic finds newer packages than the AMI's own snapshot of the repository.
        {"path": "/etc/dnf/vars/releasever", "permissions": "0644", "text": "latest\n"},
    ]
    for name, (path, permissions) in _TEMPLATES.items():
        entries.append({"path": path, "permissions": permissions, "text": _render(name, config, variables=values)})
    for name, (path, permissions) in _STATIC.items():
        entries.append({"path": path, "permissions": permissions, "text": _source(name)})
    return entries


def _source(name: str) -> str:
    # Line ends as on the host, whatever git made of them on this machine.
    return (_FILES / name).read_bytes().decode().replace("\r\n", "\n")


def _render(name: str, config: HostConfig | None = None, **more: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  these are YAML and sh, quoted by the two filters below
        keep_trailing_newline=True,
    )
    # JSON strings are YAML strings. Not jinja's own tojson, which escapes for HTML.
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=True)
    environment.filters["shell"] = shlex.quote
    return environment.get_template(name).render(**(vars(config) if config else {}), **more)

"""The host's files, and how they get into EC2 user data.

``files/`` has everything that is written to the host, which gets it without comments. Few files are templates. All
other values that differ between stacks are in one environment file, so that tests run the units and scripts as the host
does.
"""

import base64
import functools
import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import zopfli.gzip

from teleport_eks.ports import Port
from teleport_eks.settings import Settings

LIMIT = 16_384  # bytes of user data before base64; EC2's own limit

# Left out on the host, because with all options on, the comments do not fit into the limit.
COMMENTS = re.compile(r"^[ \t]*#(?!!).*\n", re.MULTILINE)
# With `topology: ha`, a line that begins so is a command. On other hosts it is a comment.
NODES_ONLY = re.compile(r"^([ \t]*)#ha ", re.MULTILINE)

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
# With alarmTopicArn.
_SIGNALS = {
    "teleport-signals.service": (f"{_UNITS}/teleport-signals.service", "0644"),
    "teleport-signals.timer": (f"{_UNITS}/teleport-signals.timer", "0644"),
    "signals": (f"{_SCRIPTS}/signals", "0755"),
}
# With logRetentionDays.
_LOGS = {"teleport-logs.service": (f"{_UNITS}/teleport-logs.service", "0644")}
_LOGS_TEMPLATES = {
    "cloudwatch-agent.json.j2": ("/opt/aws/amazon-cloudwatch-agent/etc/amazon-cloudwatch-agent.json", "0644")
}
# Only if recordings are kept in S3.
_RECORDINGS = {
    "recordings": (f"{_SCRIPTS}/recordings", "0755"),
    "recordings.conf": (f"{_UNITS}/teleport.service.d/recordings.conf", "0644"),
    "teleport-recordings.service": (f"{_UNITS}/teleport-recordings.service", "0644"),
}
# With topology: ha.
_NODES = {
    "nodes.sh": (f"{_SCRIPTS}/nodes.sh", "0644"),
    "nodes.conf": (f"{_UNITS}/teleport-access.service.d/nodes.conf", "0644"),
    "peer": (f"{_SCRIPTS}/peer", "0755"),
    "teleport-peer.service": (f"{_UNITS}/teleport-peer.service", "0644"),
    "teleport-peer.timer": (f"{_UNITS}/teleport-peer.timer", "0644"),
    "teleport-forwarder.service": (f"{_UNITS}/teleport-forwarder.service", "0644"),
    "forwarder.conf": (f"{_UNITS}/teleport.service.d/forwarder.conf", "0644"),
}
_NODES_TEMPLATES = {"haproxy.cfg.j2": ("/etc/teleport-eks/haproxy.cfg", "0644")}
# With topology: ha, unless the certificate is the operator's own.
_ISSUE = {"issue": (f"{_SCRIPTS}/issue", "0755")}
# What takes the place of a file in files/ if the certificate is the operator's own.
_OWN_CERTIFICATE = {
    "certificate": "own-certificate",
    "teleport-certificate.timer": "own-certificate.timer",
}
# The same if the nodes share one.
_SHARED_CERTIFICATE = {
    "certificate": "shared-certificate",
    "issue": "certificate",
    "teleport-certificate.timer": "own-certificate.timer",
}
_TEMPLATES = {
    "host.env.j2": ("/etc/teleport-eks/host.env", "0600"),
    "teleport.yaml.j2": ("/etc/teleport.yaml", "0600"),
}


@dataclass(frozen=True)
class HostConfig:
    """What one host needs to know.

    ``hostname`` is the proxy's public name and ``public_ip`` the Elastic IP that it resolves to; ``volume_id`` is the
    data volume. Under ``parameters_path`` (``/teleport-eks/<stack>``) the stack keeps in SSM: ``roles/<name>``
    (String, one Teleport role as JSON), ``github-connector`` (String, the connector as JSON without its client secret),
    ``github-client-secret`` and ``acme/eab-key`` (SecureStrings). With ``dns_zone_id``, the host proves its name by
    DNS-01 through that Route 53 zone, else by HTTP-01 on port 80. ``recordings_url`` is where in S3 recordings are
    kept, such as ``s3://bucket/records``, if not on the volume.

    With ``topology: ha``, all hosts have the same user data. There is no Elastic IP and no volume: Teleport's state and
    audit events are in the DynamoDB tables ``state_table`` and ``events_table``, and recordings in S3.
    """

    settings: Settings
    stack: str
    region: str
    hostname: str
    public_ip: str | None
    volume_id: str | None
    parameters_path: str
    dns_zone_id: str | None = None
    recordings_url: str | None = None
    state_table: str | None = None
    events_table: str | None = None
    teleport_cdn: str = "https://cdn.teleport.dev"


class UserDataTooLargeError(ValueError):
    """The user data does not fit into EC2's limit, even compressed."""


def variables(config: HostConfig) -> dict[str, str]:
    """The host's environment file, as names and values. No value is secret, because many can read user data."""
    settings = config.settings
    options = {
        "ACME_EAB_KEY_ID": settings.acme_eab_key_id,
        "CERTIFICATE_ARN": settings.certificate_arn,
        "RECORDINGS": config.recordings_url,
        # certbot's HTTP library may bring its own roots.
        "REQUESTS_CA_BUNDLE": settings.private_ca and "/etc/pki/tls/certs/ca-bundle.crt",
        "STATE_TABLE": config.state_table,
    }
    return {
        # Both the AWS CLI of the host (v2) and of the tests (v1) read this one.
        "AWS_DEFAULT_REGION": config.region,
        "STACK": config.stack,
        "CLUSTER_NAME": settings.cluster_name,
        # Not HOSTNAME, which the shell sets itself.
        "PROXY_NAME": config.hostname,
        "PUBLIC_IP": config.public_ip or "",
        "WEB_PORT": str(settings.web_port),
        "VOLUME_ID": config.volume_id or "",
        "PARAMETERS_PATH": config.parameters_path,
        "TELEPORT_CDN": config.teleport_cdn,
        "TELEPORT_VERSION": settings.teleport_version,
        "TELEPORT_ARCH": settings.architecture,
        "TELEPORT_SHA256": settings.teleport_sha256 or "",
        "ACME_EMAIL": settings.acme_email,
        "ACME_SERVER": settings.acme_server,
        "MAINTENANCE_WINDOW": settings.maintenance_window,
        "DNS_ZONE_ID": config.dns_zone_id or "",
        **{name: value for name, value in options.items() if value},
    }


def revision(config: HostConfig) -> str:
    """A short name for everything on this host. It changes whenever the user data changes."""
    return hashlib.sha256(_document(config, _entries(config, revision="")).encode()).hexdigest()[:12]


def files(config: HostConfig) -> dict[str, str]:
    """Every file that user data writes: path on the host -> text."""
    return {file["path"]: file["text"] for file in _entries(config, revision(config))}


def cloud_config(config: HostConfig) -> str:
    """The cloud-config document, before base64 and compression."""
    return _document(config, _entries(config, revision(config)))


def render(config: HostConfig) -> str:
    """The user data, base64 of gzip. A pure function: the same input gives the same bytes everywhere.

    Raises ``UserDataTooLargeError`` when it does not fit into EC2's limit.
    """
    entries = _entries(config, revision(config))
    parts = {file["path"]: file["text"] for file in entries}
    return base64.b64encode(_compress(_document(config, entries), parts)).decode()


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


def _document(config: HostConfig, entries: Sequence[Mapping[str, str]]) -> str:
    return _render("cloud-config.yaml.j2", files=entries, private_ca=config.settings.private_ca)


def _entries(config: HostConfig, revision: str) -> list[dict[str, str]]:
    values = {**variables(config), "REVISION": revision}
    for name, value in values.items():
        # The environment file has one line per value. A line break would begin another one.
        if not value.isprintable():
            raise ValueError(f"{name} holds a character that does not print: {value!r}")
    signals, logs = config.settings.alarm_topic_arn, config.settings.log_retention_days
    static = _STATIC | (_SIGNALS if signals else {}) | (_LOGS if logs else {})
    nodes, own_certificate = config.settings.topology == "ha", config.settings.certificate_arn
    static |= _RECORDINGS if config.recordings_url and not nodes else {}
    static |= (_NODES if own_certificate else _NODES | _ISSUE) if nodes else {}
    templates = _TEMPLATES | (_LOGS_TEMPLATES if logs else {}) | (_NODES_TEMPLATES if nodes else {})
    instead = _OWN_CERTIFICATE if own_certificate else _SHARED_CERTIFICATE if nodes else {}
    ca = config.settings.private_ca
    texts = [
        *([("/etc/pki/ca-trust/source/anchors/teleport-eks.pem", "0644", ca)] if ca else []),
        # So that dnf-automatic finds newer packages than the AMI's own snapshot of the repository.
        ("/etc/dnf/vars/releasever", "0644", "latest\n"),
        *((*target, _render(name, config=config, variables=values, ports=Port)) for name, target in templates.items()),
        *((*target, _source(instead.get(name, name))) for name, target in static.items()),
    ]
    wanted = [*(["teleport-signals.timer"] if signals else []), *(["teleport-logs.service"] if logs else [])]
    if wanted:
        # A timer that the boot starts when Teleport runs brings them, so the boot does not have to know them.
        texts.append((f"{_UNITS}/teleport-access.timer.d/more.conf", "0644", f"[Unit]\nWants={' '.join(wanted)}\n"))
    texts = [(path, mode, NODES_ONLY.sub(r"\1", text) if nodes else text) for path, mode, text in texts]
    return [{"path": path, "permissions": mode, "text": COMMENTS.sub("", text)} for path, mode, text in texts]


def _source(name: str) -> str:
    # With the line ends of the host, even if git has changed them on this machine.
    return (_FILES / name).read_bytes().decode().replace("\r\n", "\n")


def _render(name: str, **values: object) -> str:
    return _templates().get_template(name).render(**values)


@functools.cache  # with it, a template is compiled once; that is most of what it takes
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  these are YAML and sh, quoted by the two filters below
        keep_trailing_newline=True,
        auto_reload=False,
    )
    # JSON strings are YAML strings. Not jinja's own tojson, which escapes for HTML.
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=True)
    environment.filters["shell"] = shlex.quote
    return environment

"""The user data: what is rendered, that it fits, and that each program accepts its files. tests/boot runs them."""

import ast
import base64
import dataclasses
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest

import teleport_eks.userdata as userdata
from teleport_eks.ports import Port
from teleport_eks.userdata import HostConfig, UserDataTooLargeError, cloud_config, files, render
from tests.boot import strict
from tests.examples import HA_HOST, HOST, HOST_WITH_ALL

# As the real Teleport names them: the events of a day, and the link to today's.
LOG = "/var/lib/teleport/log"
AUDIT_LOG = f"{LOG}/5c4c8b1e-0000-4000-8000-000000000000/2026-11-25.00:00:00.log", f"{LOG}/events.log"
NODES_AUDIT_LOG = f"{LOG}/events/2026-11-25.00:00:00.log", f"{LOG}/events/events.log"
SOURCES = Path(userdata.__file__).parent / "files"


def with_email(text: str, **changes: str) -> HostConfig:
    return dataclasses.replace(HOST, settings=HOST.settings.model_copy(update={"acme_email": text}), **changes)


def tool(name: str, package: str) -> str:
    """The tool's path; without it the test is skipped, and fails in CI, where it must not be missing."""
    found = shutil.which(name)
    if not found:
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say(f"{name} is not on this machine: apt-get install {package}")
    assert found
    return found


def run(*command: str | Path, **more: Any) -> str:
    """The command's output. It must end without an error."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def unit(name: str) -> dict[str, list[str]]:
    """A unit's settings, whatever their section: name -> values."""
    found: dict[str, list[str]] = {}
    for line in (SOURCES / name).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_the_same_input_gives_the_same_bytes_in_another_process():
    script = "import sys; from tests.unit.test_userdata import *; sys.stdout.write(render(HOST_WITH_ALL))"
    changed = {"PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path), "TZ": "Asia/Tokyo"}
    assert run(sys.executable, "-c", script, env={**os.environ, **changed}) == render(HOST_WITH_ALL)


def test_the_message_about_the_limit_names_the_largest_file():
    noise = os.urandom(20_000).hex()
    with pytest.raises(UserDataTooLargeError, match="the largest file in it is /b with 40,000 bytes") as info:
        userdata._compress(noise, {"/a": "short", "/b": noise})
    packed = len(userdata._compress(noise, {}, limit=len(noise)))
    assert f"{packed:,} bytes" in str(info.value)
    assert f"{packed - userdata.LIMIT:,} more than the 16,384" in str(info.value)


def test_the_compressed_bytes_are_pinned():
    # Other bytes for the same input would replace every host: change this only on purpose.
    packed = userdata._compress("".join(f"{n * n} teleport-eks\n" for n in range(200)), {})
    assert hashlib.sha256(packed).hexdigest() == "50c2795856610762b01453f1b3a1bf150ab5a39cf341bbb47be4b24a788c6143"


@pytest.mark.parametrize("config", [HOST, HOST_WITH_ALL, HA_HOST])
def test_user_data_writes_every_file_with_its_values(config: HostConfig):
    document = cloud_config(config)
    assert gzip.decompress(base64.b64decode(render(config))).decode() == document
    assert "{{" not in document
    assert "{%" not in document
    written = {entry["path"]: entry["content"] for entry in strict.load(document)["write_files"]}
    assert written == files(config)


def test_values_are_quoted_for_the_shell_and_for_yaml():
    nasty = """o'b"r$(id)`id`\\ #x: {y}"""
    config = with_email(nasty, stack=nasty)
    env = files(config)["/etc/teleport-eks/host.env"]
    assert [line.partition("=")[0] for line in env.splitlines()] == [*userdata.variables(config), "REVISION"]
    assert run("bash", "-c", 'set -a; . /dev/stdin; printf "%s" "$ACME_EMAIL"', input=env) == nasty
    assert strict.load(files(config)["/etc/teleport.yaml"])["ssh_service"]["labels"]["stack"] == nasty


def test_a_value_with_a_line_break_is_refused():
    with pytest.raises(ValueError, match="ACME_EMAIL"):
        render(with_email("a\nTELEPORT_CDN=https://elsewhere"))


def test_what_a_stack_does_not_ask_for_is_not_on_its_host():
    more = files(HOST_WITH_ALL).keys() - files(HOST).keys()
    assert {Path(path).name for path in more} == {
        *("signals", "teleport-signals.service", "teleport-signals.timer"),
        *("amazon-cloudwatch-agent.json", "teleport-logs.service", "more.conf"),
        *("recordings", "recordings.conf", "teleport-recordings.service"),
        "teleport-eks.pem",
    }
    assert files(HOST_WITH_ALL)["/etc/systemd/system/teleport-access.timer.d/more.conf"].splitlines() == [
        "[Unit]",
        "Wants=teleport-signals.timer teleport-logs.service",
    ]


def test_several_nodes_share_what_a_single_host_has_of_its_own():
    single, nodes = files(HOST_WITH_ALL), files(HA_HOST)
    names = [
        {Path(path).name for path in some.keys() - others.keys()} for some, others in ((nodes, single), (single, nodes))
    ]
    # The recordings are in the bucket while the session goes on, so there are none to copy.
    assert names == [
        {
            *("nodes.sh", "nodes.conf", "issue", "haproxy.cfg", "forwarder.conf"),
            *("peer", "teleport-peer.service", "teleport-peer.timer", "teleport-forwarder.service"),
        },
        {"recordings", "recordings.conf", "teleport-recordings.service"},
    ]
    changed = {Path(path).name for path in single.keys() & nodes.keys() if single[path] != nodes[path]}
    assert changed == {
        *("host.env", "teleport.yaml", "amazon-cloudwatch-agent.json"),
        *("bootstrap", "maintenance", "certificate", "teleport-certificate.timer"),
    }
    scripts = "/usr/local/lib/teleport-eks"
    assert nodes[f"{scripts}/issue"] == single[f"{scripts}/certificate"]
    bootstrap = single[f"{scripts}/bootstrap"]
    for before, added in (
        ("missing=() name\n", "  wanted+=(haproxy)\n"),
        ('$missed kubernetes"\n', "  wait_for_packages\n"),
    ):
        bootstrap = bootstrap.replace(before, before + added)
    bootstrap = bootstrap.replace("trap pause_when_failed", f". {scripts}/nodes.sh\ntrap pause_when_failed")
    assert nodes[f"{scripts}/bootstrap"] == bootstrap
    storage = strict.load(nodes["/etc/teleport.yaml"])["teleport"]["storage"]
    assert storage["audit_events_uri"][0] == f"dynamodb://{HA_HOST.events_table}", "Teleport searches the first one"
    assert storage["audit_events_uri"][1:] == ["file:///var/lib/teleport/log/events"], "the CloudWatch agent reads it"
    own = dataclasses.replace(
        HA_HOST, settings=HA_HOST.settings.model_copy(update={"certificate_arn": "arn:aws:ssm:x"})
    )
    assert "put-item" in cloud_config(HA_HOST)
    assert "put-item" not in cloud_config(own), "nothing is issued"


@pytest.mark.parametrize(("config", "logs"), [(HOST_WITH_ALL, AUDIT_LOG), (HA_HOST, NODES_AUDIT_LOG)])
def test_the_agent_ships_each_unit_and_the_audit_events_to_the_stacks_group(config: HostConfig, logs: tuple[str, str]):
    written = files(config)
    collected = json.loads(written["/opt/aws/amazon-cloudwatch-agent/etc/amazon-cloudwatch-agent.json"])["logs"]
    (journal,), (audit,) = (source["collect_list"] for source in collected["logs_collected"].values())
    services = {Path(path).stem for path in {*files(HOST_WITH_ALL), *written} if path.endswith(".service")}
    assert set(journal["units"]) == services
    assert journal["log_group_name"] == audit["log_group_name"] == "/teleport-eks/dev"
    # Not the link: the agent would stay with the day to which it leads when it starts.
    assert [Path(log).match(audit["file_path"]) for log in logs] == [True, False]
    assert "auto_removal" not in audit, "it would remove the audit log from the host"


@pytest.mark.parametrize("config", [HOST, HOST_WITH_ALL, HA_HOST])
def test_teleport_accepts_its_configuration(config: HostConfig):
    text = files(config)["/etc/teleport.yaml"]
    assert strict.check_config(text) == []
    parsed = strict.load(text)
    assert parsed["auth_service"]["cluster_name"] == config.hostname
    addresses = {key: value for key, value in parsed["proxy_service"].items() if key.endswith("public_addr")}
    assert addresses == {
        "public_addr": f"{config.hostname}:3080",
        "ssh_public_addr": f"{config.hostname}:3023",
        "tunnel_public_addr": f"{config.hostname}:3024",
        "kube_public_addr": f"{config.hostname}:3026",
    }


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("auth_service:", "auth_service:\n  enabeld: yes"), "auth_service.enabeld is not known"),
        (("  data_dir:", "  relay_server: x\n  data_dir:"), "teleport.relay_server is not known"),
        (("  nodename:", "  nodename: x\n  nodename:"), "comes twice"),
        (("  listen_addr: 127.0.0.1:3027\n", ""), "listen_addr is required"),
        (("127.0.0.1:3027", "0.0.0.0:3026"), "listened on twice"),
        (("  kube_listen_addr: 0.0.0.0:3026\n", ""), "needs kube_listen_addr"),
        (("ssh_service:\n  enabled:", "ssh_service:\n  enabled: maybe #"), "ssh_service.enabled"),
        (("version: v3", "version: v2"), "version must be v3"),
    ],
)
def test_the_check_of_teleports_configuration_finds(change: tuple[str, str], error: str):
    text = files(HOST)["/etc/teleport.yaml"]
    assert change[0] in text
    assert error in "\n".join(strict.check_config(text.replace(*change, 1)))


def test_the_script_names_only_ports_of_the_proxy():
    named = {int(port) for port in re.findall(r":(\d+)\b(?!\.)", (SOURCES / "maintenance").read_text())}
    assert named == {Port.SSH_PROXY, Port.KUBERNETES, Port.SSH}  # and $WEB_PORT


@pytest.mark.parametrize(
    "name",
    [
        *("common.sh", "bootstrap", "certificate", "own-certificate", "dns-challenge", "maintenance"),
        *("recordings", "signals", "nodes.sh", "peer", "shared-certificate"),
    ],
)
def test_shellcheck(name: str):
    run(Path(sys.executable).with_name("shellcheck"), "-x", "-P", "SCRIPTDIR", name, cwd=SOURCES)


def test_the_python_script_runs_on_the_python_of_al2023():
    tree = ast.parse((SOURCES / "access").read_text(), feature_version=(3, 9))
    imported = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    assert imported <= sys.stdlib_module_names


def test_systemd_accepts_the_units(tmp_path: Path):
    analyze = tool("systemd-analyze", "systemd")
    written = {**files(HA_HOST), **files(HOST_WITH_ALL)}
    programs = ("/usr/local/bin/teleport", "/usr/bin/dnf", "/usr/bin/systemctl", "/usr/sbin/haproxy")
    for path, text in {**written, **dict.fromkeys(programs, "#!/bin/sh\n")}.items():
        here = tmp_path / path.lstrip("/")
        here.parent.mkdir(parents=True, exist_ok=True)
        # systemd-analyze looks whether the programs exist; here they do below tmp_path.
        here.write_text(text.replace("ExecStart=/usr", f"ExecStart={tmp_path}/usr"))
        here.chmod(0o644 if path.startswith("/etc/systemd/system/") else 0o755)
    units = [tmp_path / path.lstrip("/") for path in written if path.endswith((".service", ".timer"))]
    assert len(units) > 10
    done = subprocess.run([analyze, "verify", *units], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "teleport" in line]
    assert (done.returncode, complaints) == (0, []), done.stderr


def test_the_bootstrap_unit_shares_its_mounts_with_the_host():
    # Any of these would give it a mount namespace, and Teleport would see an empty directory.
    for setting in ("PrivateTmp", "ProtectHome", "ProtectSystem", "PrivateDevices", "ReadWritePaths", "PrivateMounts"):
        assert setting not in unit("teleport-bootstrap.service")


def test_systemd_reads_the_calendar_of_each_timer():
    analyze = tool("systemd-analyze", "systemd")
    for name in [path.name for path in SOURCES.glob("*.timer")]:
        for expression in unit(name)["OnCalendar"]:
            run(analyze, "calendar", expression)


@pytest.mark.parametrize("config", [HOST, HOST_WITH_ALL, HA_HOST])
def test_cloud_init_accepts_the_configuration(tmp_path: Path, config: HostConfig):
    document = tmp_path / "user-data"
    document.write_text(cloud_config(config))
    run(tool("cloud-init", "cloud-init"), "schema", "--config-file", document)


def test_each_template_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    compile_source = jinja2.Environment.compile

    def count(self: jinja2.Environment, source: str, name: str, *more: Any) -> Any:
        compiled.append(name)
        return compile_source(self, source, name, *more)

    monkeypatch.setattr(jinja2.Environment, "compile", count)
    userdata._templates.cache_clear()
    render(HOST)
    userdata.revision(HOST_WITH_ALL)
    assert sorted(compiled) == sorted({"cloud-config.yaml.j2", *userdata._TEMPLATES, *userdata._LOGS_TEMPLATES})


def test_another_value_template_or_port_is_another_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    before = userdata.revision(HOST)
    assert userdata.revision(dataclasses.replace(HOST)) == before
    assert userdata.revision(with_email("other@example.com")) != before
    monkeypatch.setattr(userdata, "Port", SimpleNamespace(**{**Port.__members__, "NODE": 443}))
    assert userdata.revision(HOST) != before

"""The command provider: shell commands on this machine."""

import os
import subprocess
from typing import Any

from sandbox.providers.server import Kind, Props, Provider
from sandbox.providers.server import serve as serve_provider

STREAMS = ("stdout", "stderr")


def run(line: str, props: Props) -> Props:
    """Runs a command in the program's directory; returns what it said. Raises RuntimeError with that if it fails."""
    before = {f"PULUMI_COMMAND_{stream.upper()}": props.get(stream, "") for stream in STREAMS}
    environment = {**os.environ, **before, **props.get("environment", {})}
    done = subprocess.run(
        ["/bin/sh", "-c", line], input=props.get("stdin", ""), env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{line}\nexit status {done.returncode}: {done.stderr.strip()}")
    return {stream: getattr(done, stream).rstrip("\n") for stream in STREAMS}


def create(props: Props) -> str:
    props |= run(props["create"], props) if "create" in props else {}
    return f"command-{os.urandom(4).hex()}"


def update(_id: str, old: Props, new: Props) -> None:
    line = new.get("update") or new.get("create")
    new |= run(line, {**old, **new}) if line else {}


def delete(_id: str, props: Props) -> None:
    if "delete" in props:
        run(props["delete"], props)


def serve(server: Any) -> None:
    # There is nothing to read: what the command has said is in the state.
    command = Kind(create, lambda _id, props: props, delete, update, replaces=("triggers",), computed=STREAMS)
    serve_provider(server, Provider("pulumi_command", {"command:local:Command": command}))

"""The command provider: shell commands on this machine, in the program's directory."""

import os
import subprocess
from typing import ClassVar

from sandbox.providers import server
from sandbox.providers.server import Kind, Props

STREAMS = ("stdout", "stderr")


def run(line: str, props: Props, last: Props | None = None) -> None:
    """Runs a command, and keeps in ``props`` what it says. Raises RuntimeError with that if it fails."""
    before = {f"PULUMI_COMMAND_{stream.upper()}": (last or {}).get(stream, "") for stream in STREAMS}
    environment = {**os.environ, **before, **props.get("environment", {})}
    shell, said = ["/bin/sh", "-c", line], props.get("stdin", "")
    done = subprocess.run(shell, input=said, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{line}\nexit status {done.returncode}: {done.stderr.strip()}")
    props |= {stream: getattr(done, stream).rstrip("\n") for stream in STREAMS}


def create(props: Props) -> str:
    run(props.get("create", ""), props)
    return f"command-{os.urandom(4).hex()}"


class Provider(server.Provider):
    package = "pulumi_command"
    kinds: ClassVar = {
        "command:local:Command": Kind(
            create,
            lambda _id, props: props,  # there is nothing to read: what the command said is in the state
            lambda _id, props: run(props.get("delete", ""), props, props),
            lambda _id, old, new: run(new.get("update") or new.get("create", ""), new, old),
            replaces=("triggers",),
            computed=STREAMS,
        )
    }

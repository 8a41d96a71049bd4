"""Processes that outlive the one that starts them, and are stopped by their id, never by mistake another's."""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

STOP_WITHIN = 10  # seconds, then it is killed


def start(command: Sequence[str], log: Path, environment: dict[str, str]) -> int:
    """Starts ``command`` in the log's directory, its output going to ``log``; returns its process id."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=log.parent,
            env=environment,
            start_new_session=True,  # Ctrl-C in the terminal is not for it
        )
    while process.poll() is None and not runs(process.pid, command):
        time.sleep(0.01)  # for an instant, a new process has no command line yet
    process.returncode = 0  # it is meant to outlive this object, which would warn about that
    return process.pid


def runs(pid: int | None, command: Sequence[str]) -> bool:
    """Whether the process is still that command: ids are given again."""
    # The arguments name ports and directories. The program itself may be a wrapper.
    return bool(pid and command and _command_of(pid).endswith(" ".join(command[1:])))


def end(pid: int | None, command: Sequence[str], how: signal.Signals = signal.SIGTERM) -> None:
    """Ends the process, if it is still that command, and waits until it is gone."""
    if not pid or not runs(pid, command):
        return
    deadline = time.monotonic() + STOP_WITHIN
    with suppress(ProcessLookupError):
        os.kill(pid, how)
        while runs(pid, command):
            time.sleep(0.02)
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    """Ports below those that the system gives to outgoing connections, which could take one before it is used."""
    return list(islice(filter(is_free, random.sample(range(20000, 32000), 1000)), count))


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


def _command_of(pid: int) -> str:
    """The command line of a process; nothing of one that has ended, whether its parent has noticed or not."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # leaves no zombie, if it was this process that started it
    if Path("/proc/self").exists():
        with suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
        return ""
    macos = ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)]
    return subprocess.run(macos, capture_output=True, text=True, check=False).stdout.strip()

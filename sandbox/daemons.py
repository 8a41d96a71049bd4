"""Processes that outlive the one that starts them, and are stopped by their id, never by mistake another's."""

import json
import random
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Daemon:
    """A process. In ``directory``, ``NAME.log`` has its output, and ``NAME.json`` which process it is."""

    directory: Path
    name: str

    @property
    def log(self) -> Path:
        return self.directory / f"{self.name}.log"

    @property
    def known(self) -> dict:
        file = self.directory / f"{self.name}.json"
        return json.loads(file.read_text()) if file.exists() else {"pid": 0, "command": []}

    def start(self, command: Sequence[str], environment: dict[str, str]) -> None:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=environment,
                start_new_session=True,  # Ctrl-C in the terminal does not stop it
            )
        (self.directory / f"{self.name}.json").write_text(json.dumps({"pid": process.pid, "command": list(command)}))
        while process.poll() is None and not self.process():
            time.sleep(0.01)  # for an instant, a new process has no command line yet
        process.returncode = 0  # it is meant to outlive this object, which would warn about that

    def process(self) -> psutil.Process | None:
        """The process, if it runs and is still that command: the system uses ids again."""
        arguments = " ".join(self.known["command"][1:])  # they name ports and directories; the program may be a wrapper
        with suppress(psutil.Error):
            process = psutil.Process(self.known["pid"])
            if arguments and " ".join(process.cmdline()).endswith(arguments):
                return process
        return None

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends the process, if it runs, and waits until it is gone."""
        if process := self.process():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(how)
                try:
                    process.wait(10)
                except psutil.TimeoutExpired:
                    process.kill()
                    process.wait()


def free_ports(count: int) -> list[int]:
    """Ports below those that the system gives to outgoing connections, which could take one before it is used."""
    return list(islice(filter(is_free, random.sample(range(20000, 32000), 1000)), count))


def is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return True
    return False

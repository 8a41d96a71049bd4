"""A TCP balancer, as AWS's network load balancer is one."""

import contextlib
import socket
import socketserver
import threading
from typing import Any


class Balancer(socketserver.ThreadingTCPServer):
    """Passes each connection to the first of ``nodes`` that takes it."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, port: int, nodes: list[str]) -> None:
        super().__init__(("127.0.0.1", port), socketserver.BaseRequestHandler)
        self.nodes, self.port = nodes, port
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def finish_request(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  the library's
        for node in self.nodes:
            with contextlib.suppress(OSError), socket.create_connection((node, self.port)) as server:
                threading.Thread(target=copy, args=(server, request), daemon=True).start()
                copy(request, server)
                return


def copy(source: socket.socket, target: socket.socket) -> None:
    """Until one of them ends. Then both do."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)

"""``python -m sandbox.providers NAME ENGINE``: one plugin, as the Pulumi engine starts it."""

import importlib
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
from pulumi.runtime.proto import language_pb2_grpc

from sandbox.providers.server import serve

# What the engine calls them.
PLUGINS = {
    "language": "pulumi-language-python",
    "aws": "pulumi-resource-aws",
    "command": "pulumi-resource-command",
    "kubernetes": "pulumi-resource-kubernetes",
}


def main(name: str) -> None:
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))  # so the engine stops it
    parent = os.getppid()
    large = 400 << 20  # bytes, as the engine has it
    options = [("grpc.max_receive_message_length", large), ("grpc.max_send_message_length", large)]
    server = grpc.server(ThreadPoolExecutor(16), options=options)
    module = importlib.import_module(f"sandbox.providers.{name}")
    if name == "language":
        language_pb2_grpc.add_LanguageRuntimeServicer_to_server(module.Host(lambda: None), server)
    else:
        serve(server, module.Provider())
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    while os.getppid() == parent:  # the engine may have been killed
        time.sleep(0.5)


if __name__ == "__main__":
    main(sys.argv[1])

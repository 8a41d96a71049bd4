"""The proxy's ports. The component network opens them, ``teleport.yaml`` listens on them, URLs name them.

The host's script ``maintenance`` repeats some: it is no template, so that the file that is tested is the file that
runs. A test compares its numbers with these.
"""

from enum import IntEnum


class Port(IntEnum):
    SSH = 22
    ACME = 80  # Let's Encrypt's HTTP-01 challenge
    MULTIPLEX = 443  # with listenerMode multiplex: everything that people connect to
    NODE = 3022  # Teleport's SSH node
    SSH_PROXY = 3023
    TUNNEL = 3024
    AUTH = 3025
    KUBERNETES = 3026
    KUBERNETES_SERVICE = 3027  # Teleport requires a port for it; only the proxy itself uses it
    OTHER_AUTH = 3028  # with topology ha, on loopback only: HAProxy, in front of both hosts' auth services
    WEB = 3080

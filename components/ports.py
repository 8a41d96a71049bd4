"""The proxy's ports. The component network opens them, ``teleport.yaml`` listens on them, URLs name them.

Two scripts of the host, ``bootstrap`` and ``maintenance``, repeat some: they are no templates, so that the files that
are tested are the files that run. A test compares their numbers with these.
"""

from enum import IntEnum


class Port(IntEnum):
    SSH = 22
    ACME = 80  # Let's Encrypt's HTTP-01 challenge
    NODE = 3022  # Teleport's SSH node
    SSH_PROXY = 3023
    TUNNEL = 3024
    AUTH = 3025
    KUBERNETES = 3026
    KUBERNETES_SERVICE = 3027  # Teleport requires a port for it; the firewall does not open it
    WEB = 3080

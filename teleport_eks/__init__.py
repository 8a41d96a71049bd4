"""The proxy as a library, for Pulumi programs of your own: see docs/library.md."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from teleport_eks.access import Team
    from teleport_eks.cluster import Site, look_up
    from teleport_eks.proxy import TeleportProxy, TeleportProxyArgs
    from teleport_eks.settings import Settings

__all__ = ["Settings", "Site", "Team", "TeleportProxy", "TeleportProxyArgs", "look_up"]

_MODULES = {
    "Settings": "settings",
    "Site": "cluster",
    "Team": "access",
    "TeleportProxy": "proxy",
    "TeleportProxyArgs": "proxy",
    "look_up": "cluster",
}


def __getattr__(name: str) -> Any:
    # On demand, because Pulumi's libraries load slowly and `python -m teleport_eks.aws_auth` does not need them.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)

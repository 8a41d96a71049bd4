"""Gives a team kubectl access to one EKS cluster through Teleport, signed in with GitHub."""

import pulumi

from teleport_eks.cluster import look_up
from teleport_eks.console_page import console_page
from teleport_eks.proxy import TeleportProxy, TeleportProxyArgs
from teleport_eks.settings import load


def main() -> None:
    stack = pulumi.get_stack()
    settings = load(stack)
    site = look_up(settings, stack)

    proxy = TeleportProxy("teleport", TeleportProxyArgs(stack, settings, site))

    for name, value in proxy.outputs.items():
        pulumi.export(name, value)
    page = pulumi.Output.all(**proxy.outputs).apply(lambda known: console_page(settings, site, stack, known))
    pulumi.export("readme", page)


main()

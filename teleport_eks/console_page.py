"""The stack's page in Pulumi Cloud's console: the output ``readme``, from the template ``Pulumi.README.md``."""

from collections.abc import Mapping
from pathlib import Path

import jinja2

from teleport_eks.cluster import Site
from teleport_eks.settings import Settings

TEMPLATE = Path(__file__).parent.parent / "Pulumi.README.md"


def console_page(settings: Settings, site: Site, stack: str, outputs: Mapping[str, str]) -> str:
    """Markdown with the stack's address, login, teams, cost and links. It has no secret."""
    template = jinja2.Template(TEMPLATE.read_text(), undefined=jinja2.StrictUndefined, trim_blocks=True)
    region = site.cluster.region
    console = f"https://{region}.console.aws.amazon.com"
    return template.render(settings=settings, stack=stack, outputs=outputs, region=region, console=console)

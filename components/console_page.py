"""The stack's page in Pulumi Cloud's console, which is the output ``readme``; its template is ``Pulumi.README.md``."""

from collections.abc import Mapping
from pathlib import Path

import jinja2

from components.cluster import Site
from components.settings import Settings

TEMPLATE = Path(__file__).parent.parent / "Pulumi.README.md"


def console_page(settings: Settings, site: Site, outputs: Mapping[str, str]) -> str:
    """Markdown with the stack's address, login, teams, cost and links. It holds no secret."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - Markdown, of values that are checked
    )
    region = site.cluster.region
    console = f"https://{region}.console.aws.amazon.com"
    template = environment.from_string(TEMPLATE.read_text())
    return template.render(settings=settings, outputs=outputs, region=region, console=console)

"""One proxy for all tests. Each test brings the stack to the teams that it needs, with people of its own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.rig import build_or_skip
from tests.teleport.stage import Site


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy after its first boot, without GitHub."""
    folder = Path(os.environ.get("TELEPORT", "")).absolute()
    if lacking := [name for name in ("teleport", "tctl", "tsh", "tbot") if not (folder / name).is_file()]:
        pytest.fail(f"TELEPORT={folder} is not the folder of a release: no {', '.join(lacking)}", pytrace=False)
    made: Site = build_or_skip(lambda: Site(tmp_path_factory.mktemp("site"), folder))
    try:
        made.first_boot()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def stack(site: Site) -> Site:
    """The proxy with the teams that are always there."""
    site.up()
    return site

"""One proxy for all tests. Each brings the stack to the teams that it needs, with people of its own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.binaries import ServersMissingError
from tests.boot.conftest import give_up, missing
from tests.teleport.stage import Site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy after its first boot, without GitHub."""
    folder = os.environ.get("TELEPORT", "")
    if not all(Path(folder, name).is_file() for name in ("teleport", "tctl", "tsh")):
        pytest.fail(f"TELEPORT={folder!r} is not the folder of a release: teleport, tctl and tsh", pytrace=False)
    if reason := missing():
        give_up(reason)
    try:
        made = Site(tmp_path_factory.mktemp("site"), Path(folder).absolute())
    except ServersMissingError as error:
        give_up(str(error))
        raise
    try:
        made.first_boot()
        yield made
    finally:
        made.close()

"""Commands on the operator's machine."""

from pathlib import Path

import pytest

from teleport_eks.commands import PYTHON, check_environment
from teleport_eks.errors import ConfigurationError


def test_a_machine_that_cannot_run_the_commands_is_told_before_anything_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"type `make setup`"):
        check_environment()
    with pytest.raises(ConfigurationError, match="WSL 2"):
        check_environment("nt")
    Path(PYTHON).parent.mkdir(parents=True)
    Path(PYTHON).touch()
    check_environment()

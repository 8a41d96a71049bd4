"""A real Kubernetes API, for the tests that need one."""

import os
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from sandbox.binaries import ServersMissingError, binaries
from sandbox.control_plane import SERVERS, ControlPlane


@pytest.fixture(scope="session")
def control_plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One control plane for all tests of the session, who keep out of each other's way by namespaces and names."""
    capture: Any = request.config.pluginmanager.getplugin("capturemanager")
    try:
        # The first build takes minutes: its progress is shown at once, not captured.
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            binaries(*SERVERS)
    except ServersMissingError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    with ControlPlane.start(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane

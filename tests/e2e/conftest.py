"""The engine, an emulated account and a real cluster, as `make up` has them, for the tests in this folder."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client as kubernetes
from kubernetes.config import new_client_from_config

from sandbox import engine
from sandbox.account import AWS_AUTH, Account, made_up
from sandbox.binaries import ServersMissingError
from sandbox.control_plane import ControlPlane
from tests.e2e.shell import Shell, copy_of_the_project


@pytest.fixture(scope="session")
def pulumi_cli(request: pytest.FixtureRequest) -> None:
    capture: Any = request.config.pluginmanager.getplugin("capturemanager")
    # The first build takes minutes: its progress is shown at once, not captured.
    os.environ[engine.OFFLINE] = "true"
    with capture.global_and_fixture_disabled() if capture else nullcontext():
        try:
            engine.install()
        except ServersMissingError as error:
            pytest.fail(str(error), pytrace=False)


@pytest.fixture
def account(pulumi_cli: None) -> Iterator[Account]:
    del pulumi_cli  # only has to be there
    with made_up() as account:
        yield account


@contextmanager
def aws_auth(control_plane: ControlPlane) -> Iterator[kubernetes.CoreV1Api]:
    """The cluster's API, with the sandbox's aws-auth in it for a time."""
    core = kubernetes.CoreV1Api(new_client_from_config(str(control_plane.kubeconfig)))
    body = kubernetes.V1ConfigMap(metadata=kubernetes.V1ObjectMeta(name="aws-auth"), data=AWS_AUTH)
    core.create_namespaced_config_map("kube-system", body)
    yield core
    core.delete_namespaced_config_map("aws-auth", "kube-system")


@pytest.fixture
def core(control_plane: ControlPlane) -> Iterator[kubernetes.CoreV1Api]:
    with aws_auth(control_plane) as core:
        yield core


@pytest.fixture
def shell(tmp_path: Path, account: Account, control_plane: ControlPlane, core: kubernetes.CoreV1Api) -> Shell:
    """A shell whose aws, pulumi and ~/.kube/config are the account's and the cluster's."""
    del core  # only has to be there
    (tmp_path / "home/.kube").mkdir(parents=True)
    shutil.copy(control_plane.kubeconfig, tmp_path / "home/.kube/config")
    project = copy_of_the_project(tmp_path)
    environment = {
        **os.environ,
        **account.environment(),
        **engine.environment(tmp_path),
        "HOME": str(tmp_path / "home"),
        "PATH": f"{project}/.venv/bin:{os.environ['PATH']}",
        "PULUMI_HOME": os.environ.get("PULUMI_HOME") or str(Path.home() / ".pulumi"),
        "PULUMI_SKIP_CONFIRMATIONS": "true",
        # The home is another, the programs that are built are not.
        "XDG_CACHE_HOME": str(engine.OURS.parent.parent),
    }
    return Shell(project, environment)

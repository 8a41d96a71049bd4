"""An emulated account and a real cluster, as `make up` has them, for the tests in this folder."""

from collections.abc import Iterator

import pytest
from kubernetes import client as kubernetes
from kubernetes.config import new_client_from_config

from sandbox.account import AWS_AUTH, Account, made_up
from sandbox.control_plane import ControlPlane


@pytest.fixture
def account() -> Iterator[Account]:
    with made_up() as account:
        yield account


@pytest.fixture
def core(control_plane: ControlPlane) -> Iterator[kubernetes.CoreV1Api]:
    """The cluster's API, with the sandbox's aws-auth in it for the time of the test."""
    core = kubernetes.CoreV1Api(new_client_from_config(str(control_plane.kubeconfig)))
    body = kubernetes.V1ConfigMap(metadata=kubernetes.V1ObjectMeta(name="aws-auth"), data=AWS_AUTH)
    core.create_namespaced_config_map("kube-system", body)
    yield core
    core.delete_namespaced_config_map("aws-auth", "kube-system")

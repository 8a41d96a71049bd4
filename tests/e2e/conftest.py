"""An emulated account and a real cluster, as `make up` has them, for the tests in this folder."""

import os
from collections.abc import Iterator

import pytest
import requests
from kubernetes import client as kubernetes
from kubernetes.config import new_client_from_config
from moto.server import ThreadedMotoServer

from sandbox.account import AWS_AUTH, Account, fill
from sandbox.control_plane import ControlPlane


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def account(moto: str) -> Account:
    requests.post(f"{moto}/moto-api/reset", timeout=30).raise_for_status()
    account = Account(moto)
    fill(account)
    return account


@pytest.fixture
def core(control_plane: ControlPlane) -> Iterator[kubernetes.CoreV1Api]:
    """The cluster's API, with the sandbox's aws-auth in it for the time of the test."""
    core = kubernetes.CoreV1Api(new_client_from_config(str(control_plane.kubeconfig)))
    body = kubernetes.V1ConfigMap(metadata=kubernetes.V1ObjectMeta(name="aws-auth"), data=AWS_AUTH)
    core.create_namespaced_config_map("kube-system", body)
    yield core
    core.delete_namespaced_config_map("aws-auth", "kube-system")

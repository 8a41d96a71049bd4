"""The sandbox's Kubernetes API is the real thing, and keeps its data. tests/e2e/test_sandbox.py stops it."""

import subprocess
from pathlib import Path
from uuid import uuid4

import pytest
from kubernetes import client, config

from sandbox.binaries import binaries, cache_directory, kubernetes_version
from sandbox.control_plane import ControlPlane, ControlPlaneError
from tests.waiting import wait_for


def core(kubeconfig: Path) -> client.CoreV1Api:
    return client.CoreV1Api(config.new_client_from_config(str(kubeconfig)))


def config_map(name: str, *owners: client.V1OwnerReference) -> client.V1ConfigMap:
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, owner_references=list(owners)))


def test_the_api_server_tells_clients_its_real_version(control_plane):
    program = binaries("kube-apiserver")["kube-apiserver"]
    if program.parent == cache_directory():
        expected = kubernetes_version()
    else:  # one that was there already
        expected = subprocess.check_output([program, "--version"], text=True).split()[-1]
    version = client.VersionApi(config.new_client_from_config(str(control_plane.kubeconfig))).get_code()
    assert version.git_version == expected
    assert expected.startswith(f"v{version.major}.{version.minor}.")


def test_objects_are_deleted_with_their_owner_and_with_their_namespace(control_plane):
    api, namespace = core(control_plane.kubeconfig), f"test-{uuid4().hex[:8]}"
    api.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=namespace)))
    owner = api.create_namespaced_config_map(namespace, config_map("owner")).to_dict()
    reference = client.V1OwnerReference(api_version="v1", kind="ConfigMap", name="owner", uid=owner["metadata"]["uid"])
    api.create_namespaced_config_map(namespace, config_map("owned", reference))
    api.create_namespaced_config_map(namespace, config_map("other"))

    # In the foreground, as Pulumi deletes: the owner waits for what it owns.
    api.delete_namespaced_config_map("owner", namespace, propagation_policy="Foreground")
    wait_for(lambda: len(api.list_namespaced_config_map(namespace).items) == 1, "the owned object is still there")

    api.delete_namespace(namespace)
    name = f"metadata.name={namespace}"
    wait_for(lambda: not api.list_namespace(field_selector=name).items, "the namespace is still there")


def test_a_user_can_have_a_name_as_long_as_the_arn_of_a_session(control_plane):
    arn = "arn:aws:sts::111122223333:assumed-role/a-role-with-quite-a-long-name/i-0123456789abcdef0"
    with pytest.raises(client.ApiException) as denied:
        core(control_plane.kubeconfig_for(arn, ["readers"])).list_namespaced_config_map("default")
    assert denied.value.status == 403
    assert arn in str(denied.value.body)


def test_a_restart_keeps_the_data(tmp_path):
    with ControlPlane.start(tmp_path) as plane:
        assert plane.kubeconfig.stat().st_mode & 0o777 == 0o600
        core(plane.kubeconfig).create_namespaced_config_map("default", config_map("kept"))
        before = plane.processes()
        assert ControlPlane.start(tmp_path).processes() == before, "one that is healthy is used again"
    assert not plane.is_healthy()
    plane.stop()  # to stop it again is no error
    with ControlPlane.start(tmp_path) as again:
        assert again.server == plane.server
        core(plane.kubeconfig).read_namespaced_config_map("kept", "default")


def test_another_program_with_a_recorded_pid_is_left_alone(tmp_path):
    """As after a reboot, when the pid belongs to somebody else."""
    bystander = subprocess.Popen(["/bin/sleep", "60"])
    try:
        (tmp_path / "etcd.json").write_text(f'{{"pid": {bystander.pid}, "command": ["etcd", "--x"]}}')
        ControlPlane(tmp_path).stop()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_server_that_fails_shows_the_end_of_its_log(tmp_path):
    (tmp_path / "etcd").write_text("in the way of the data directory")
    with pytest.raises(ControlPlaneError, match=r"(?s)etcd ended before it was ready.*etcd\.log.*not a directory"):
        ControlPlane.start(tmp_path)
    assert ControlPlane(tmp_path).processes() == {}

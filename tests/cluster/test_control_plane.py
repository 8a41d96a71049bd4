"""The sandbox's Kubernetes API is the real thing, and is gone when it is stopped."""

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
from kubernetes import client, config

from sandbox.binaries import binaries, cache_directory, kubernetes_version
from sandbox.control_plane import ControlPlane, ControlPlaneError


def core(kubeconfig: Path) -> client.CoreV1Api:
    return client.CoreV1Api(config.new_client_from_config(str(kubeconfig)))


def config_map(name: str, *owners: client.V1OwnerReference) -> client.V1ConfigMap:
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, owner_references=list(owners)))


def eventually(question: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not question():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def elsewhere(code: str) -> None:
    """Runs it in a Python of its own, which has ended when this returns."""
    imports = "from pathlib import Path; from sandbox.control_plane import ControlPlane; "
    subprocess.run([sys.executable, "-c", imports + code], cwd=Path(__file__).parents[2], check=True, timeout=300)


def command_line(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it ended meanwhile
        return ""


@pytest.fixture
def namespace(control_plane):
    """A namespace of the test's own. It is not waited for at the end: a deletion takes at least five seconds."""
    api = core(control_plane.kubeconfig)
    name = f"test-{uuid4().hex[:8]}"
    api.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name)))
    yield name
    with suppress(client.ApiException):  # the test may have done it
        api.delete_namespace(name)


def test_the_api_server_tells_clients_its_real_version(control_plane):
    program = binaries("kube-apiserver")["kube-apiserver"]
    if program.parent == cache_directory():
        expected = kubernetes_version()
    else:  # one that was there already
        expected = subprocess.check_output([program, "--version"], text=True).split()[-1]
    version = client.VersionApi(config.new_client_from_config(str(control_plane.kubeconfig))).get_code()
    assert version.git_version == expected
    assert expected.startswith(f"v{version.major}.{version.minor}.")


def test_an_object_goes_with_its_owner(control_plane, namespace):
    api = core(control_plane.kubeconfig)
    owner = api.create_namespaced_config_map(namespace, config_map("owner")).to_dict()
    reference = client.V1OwnerReference(api_version="v1", kind="ConfigMap", name="owner", uid=owner["metadata"]["uid"])
    api.create_namespaced_config_map(namespace, config_map("owned", reference))

    # In the foreground, as Pulumi deletes: the owner waits for what it owns.
    api.delete_namespaced_config_map("owner", namespace, propagation_policy="Foreground")

    assert eventually(lambda: not api.list_namespaced_config_map(namespace).items)


def test_a_namespace_goes_with_what_is_in_it(control_plane, namespace):
    api = core(control_plane.kubeconfig)
    api.create_namespaced_config_map(namespace, config_map("inside"))
    api.delete_namespace(namespace)
    assert eventually(lambda: not api.list_namespace(field_selector=f"metadata.name={namespace}").items)


def test_a_user_may_do_what_is_bound_to_them_and_nothing_else(control_plane, namespace):
    arn = "arn:aws:sts::111122223333:assumed-role/a-role-with-quite-a-long-name/i-0123456789abcdef0"
    user = core(control_plane.kubeconfig_for(arn, ["readers"]))
    with pytest.raises(client.ApiException) as denied:
        user.list_namespaced_config_map(namespace)
    assert denied.value.status == 403
    assert arn in str(denied.value.body)

    rbac = client.RbacAuthorizationV1Api(config.new_client_from_config(str(control_plane.kubeconfig)))
    api_group = "rbac.authorization.k8s.io"
    rbac.create_namespaced_role_binding(
        namespace,
        client.V1RoleBinding(
            metadata=client.V1ObjectMeta(name="readers"),
            role_ref=client.V1RoleRef(api_group=api_group, kind="ClusterRole", name="view"),
            subjects=[client.RbacV1Subject(api_group=api_group, kind="Group", name="readers")],
        ),
    )

    def allowed() -> bool:
        try:
            return user.list_namespaced_config_map(namespace).items == []
        except client.ApiException:
            return False

    assert eventually(allowed)
    with pytest.raises(client.ApiException) as denied:
        user.list_namespaced_config_map("default")
    assert denied.value.status == 403


def test_one_process_starts_it_and_another_stops_it(tmp_path):
    """As ``make up`` and ``make down`` do."""
    elsewhere(f"ControlPlane.start(Path({str(tmp_path)!r}))")
    plane = ControlPlane(tmp_path)
    assert plane.is_healthy()
    assert plane.kubeconfig.stat().st_mode & 0o777 == 0o600
    before = plane.processes()
    assert ControlPlane.start(tmp_path).processes() == before, "one that is healthy is used again"

    elsewhere(f"ControlPlane(Path({str(tmp_path)!r})).stop()")
    assert not plane.is_healthy()
    assert plane.processes() == {}
    assert not [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path) in command_line(p)]
    plane.stop()  # nothing is left to do, and nothing is wrong with that


def test_an_api_server_that_crashed_comes_back_with_what_it_had_confirmed(tmp_path):
    with ControlPlane.start(tmp_path) as plane:
        core(plane.kubeconfig).create_namespaced_config_map("default", config_map("kept"))
        plane.kill_api_server()
        assert not plane.is_healthy()
        ControlPlane.start(tmp_path)
        assert plane.is_healthy()
        core(plane.kubeconfig).read_namespaced_config_map("kept", "default")
    with ControlPlane.start(tmp_path) as again:
        assert again.server == plane.server
        core(plane.kubeconfig).read_namespaced_config_map("kept", "default")


def test_the_pid_of_another_program_is_left_alone(tmp_path):
    """A pid in the state that meanwhile belongs to someone else, as after a reboot."""
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

"""The editor against a real API server: many writers, and everything that goes wrong between a read and a write."""

import base64
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import partial, reduce
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import urllib3
import yaml
from kubernetes import client
from kubernetes.client import ApiException

from sandbox.account import AWS_AUTH
from sandbox.control_plane import ControlPlane
from teleport_eks.aws_auth import __main__ as command
from teleport_eks.aws_auth import configmap
from teleport_eks.aws_auth.configmap import BACKUP, NAME, NAMESPACE, connect, edit, with_entry, without_entry
from teleport_eks.aws_auth.text import Entry, RefusedError, add
from tests.examples import ENTRY

ACCOUNT = "arn:aws:iam::111122223333:role"
OPTIONS = ["--role-arn", f"{ACCOUNT}/with/path/teleport", "--username", "teleport", "--group", "teleport-group"]
NODES = AWS_AUTH["mapRoles"]
WITH_ENTRY = {**AWS_AUTH, "mapRoles": add(NODES, ENTRY)}


@pytest.fixture
def api(control_plane):
    """An administrator's client, of another kind than the editor's; before and after, there is no map."""
    api = client.CoreV1Api(connect(str(control_plane.kubeconfig)))

    def clear():
        for name in (NAME, BACKUP):
            with suppress(ApiException):
                api.delete_namespaced_config_map(name, NAMESPACE)

    clear()
    yield api
    clear()


@pytest.fixture
def no_turns(monkeypatch):
    """Threads meet as writers on many machines do."""
    monkeypatch.setattr(configmap, "_TURN", nullcontext())


def put(api, data):
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name=NAME, labels={"somebody": "else"}), data=data)
    api.create_namespaced_config_map(NAMESPACE, body)


def data_of(api, name=NAME):
    return api.read_namespaced_config_map(name, NAMESPACE).data or {}


def role(name):
    return Entry(f"{ACCOUNT}/{name}", f"{name}:{{{{SessionName}}}}", ("teams", name))


def names(text):
    return sorted(item["rolearn"].rpartition("/")[2] for item in yaml.safe_load(text) or [])


def run_at_once(tasks):
    """Runs them in as many threads, from one moment on; the first failure is raised."""
    gate = threading.Barrier(len(tasks))

    def run(task):
        gate.wait()
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(run, tasks))


def append_as_others_do(api, name):
    """Another tool's writer: appends text and writes with the version that it read."""
    while True:
        found = api.read_namespaced_config_map(NAME, NAMESPACE)
        found.data["mapRoles"] += f"- rolearn: {ACCOUNT}/{name}\n"
        try:
            return api.replace_namespaced_config_map(NAME, NAMESPACE, found)
        except ApiException as e:
            if e.status != 409:
                raise
            time.sleep(0.05)


@pytest.mark.usefixtures("no_turns")
def test_all_of_a_hundred_writers_land(api, control_plane):
    """Half of them add, a quarter removes, and a quarter are others, who patch keys or append entries."""
    writers = 100
    leaving = [role(f"leaving-{n}") for n in range(writers // 4)]
    coming = [role(f"coming-{n}") for n in range(writers // 2)]
    others = [f"other-{n}" for n in range(writers // 4)]
    appended, patched = others[::3], [name for name in others if name not in others[::3]]
    put(api, {**AWS_AUTH, "mapRoles": reduce(add, leaving, NODES)})

    clients = [connect(str(control_plane.kubeconfig)) for _ in range(writers)]
    tasks: list[Any] = [partial(edit, clients.pop(), partial(without_entry, entry=e)) for e in leaving]
    tasks += [partial(edit, clients.pop(), partial(with_entry, entry=e)) for e in coming]
    tasks += [partial(append_as_others_do, client.CoreV1Api(clients.pop()), name) for name in appended]
    for name in patched:
        patch = {"data": {name: "theirs"}}
        tasks.append(partial(client.CoreV1Api(clients.pop()).patch_namespaced_config_map, NAME, NAMESPACE, patch))
    run_at_once(tasks)

    ours = [entry.role_arn.rpartition("/")[2] for entry in coming]
    assert names(data_of(api)["mapRoles"]) == sorted([*names(NODES), *appended, *ours])

    # Without them, the map is byte for byte what it was, and what the others did to it.
    for entry in coming:
        edit(api.api_client, partial(without_entry, entry=entry))
    found = data_of(api)
    text = found.pop("mapRoles")
    assert text.startswith(NODES)
    assert sorted(text.removeprefix(NODES).splitlines()) == sorted(f"- rolearn: {ACCOUNT}/{name}" for name in appended)
    expected = {**AWS_AUTH, **dict.fromkeys(patched, "theirs")}
    assert found == {key: value for key, value in expected.items() if key != "mapRoles"}
    assert api.read_namespaced_config_map(NAME, NAMESPACE).metadata.labels == {"somebody": "else"}


def add_at_once(control_plane, count):
    entries = [role(f"team-{n}") for n in range(count)]
    clients = [connect(str(control_plane.kubeconfig)) for _ in entries]
    run_at_once([partial(edit, c, partial(with_entry, entry=e)) for c, e in zip(clients, entries, strict=True)])


@pytest.mark.usefixtures("no_turns")
def test_many_writers_find_no_map_and_one_creates_it(api, control_plane):
    add_at_once(control_plane, 10)
    assert names(data_of(api)["mapRoles"]) == [f"team-{n}" for n in range(10)]


def test_threads_of_one_process_take_turns(api, control_plane, monkeypatch):
    put(api, AWS_AUTH)
    tries = []
    read = configmap.read
    monkeypatch.setattr(configmap, "read", lambda client: tries.append(client) or read(client))
    add_at_once(control_plane, 10)
    assert len(tries) == 10


@pytest.mark.usefixtures("no_turns")
def test_the_api_server_is_killed_in_the_middle_and_comes_back(api, control_plane):
    put(api, AWS_AUTH)
    entries = [role(f"team-{n}") for n in range(20)]
    clients = [connect(str(control_plane.kubeconfig)) for _ in entries]
    all_have_read, killed = threading.Barrier(len(entries) + 1), threading.Event()

    def add(writer, entry):
        def change(data):
            if not killed.is_set():
                all_have_read.wait(60)
                killed.wait(60)
            return with_entry(data, entry)

        edit(writer, change)

    with ThreadPoolExecutor(len(entries)) as pool:
        running = [pool.submit(add, c, e) for c, e in zip(clients, entries, strict=True)]
        all_have_read.wait(60)
        control_plane.kill_api_server()
        killed.set()
        ControlPlane.start(control_plane.directory)
        for r in running:
            r.result(90)
    assert names(data_of(api)["mapRoles"]) == sorted([*names(NODES), *(f"team-{n}" for n in range(20))])


BUSY = [ApiException(429), ApiException(500), ApiException(503), urllib3.exceptions.ProtocolError("gone")]
LOST: Any = urllib3.exceptions.ReadTimeoutError(None, "", "no answer")  # type: ignore[arg-type]


@pytest.mark.parametrize(("failures", "lost"), [(BUSY, False), ([LOST], True)])
def test_a_failed_write_is_tried_again_and_a_write_whose_answer_was_lost_is_not_done_twice(
    api, monkeypatch, failures, lost
):
    put(api, AWS_AUTH)
    left, send = list(failures), configmap.send

    def flaky(client, method, *arguments, **query):
        if method != "PUT" or "dryRun" in query or not left:
            return send(client, method, *arguments, **query)
        if lost:
            send(client, method, *arguments, **query)
        raise left.pop(0)

    monkeypatch.setattr(configmap, "send", flaky)
    edit(api.api_client, partial(with_entry, entry=ENTRY))
    assert not left
    assert data_of(api) == WITH_ENTRY


@pytest.mark.parametrize("created", [{}, {"mapRoles": "# new\n"}])
def test_a_map_that_is_deleted_or_replaced_between_read_and_write_is_read_again(api, created):
    put(api, AWS_AUTH)
    seen = []

    def change(data):
        if not seen:
            api.delete_namespaced_config_map(NAME, NAMESPACE)
            if created:
                put(api, created)
        seen.append(data)
        return with_entry(data, ENTRY)

    assert edit(api.api_client, change)[0] == created
    assert seen == [AWS_AUTH, created]
    assert data_of(api) == {"mapRoles": add(created.get("mapRoles", ""), ENTRY)}


def test_without_a_map_there_is_nothing_to_remove_and_none_is_created(api):
    assert edit(api.api_client, partial(without_entry, entry=ENTRY)) == ({}, {})
    with pytest.raises(ApiException, match="404"):
        data_of(api)


def test_a_map_without_data_gets_the_entry_and_stays_when_it_goes(api):
    put(api, None)
    edit(api.api_client, partial(with_entry, entry=ENTRY))
    assert data_of(api) == {"mapRoles": add("", ENTRY)}
    edit(api.api_client, partial(without_entry, entry=ENTRY))
    assert data_of(api) == {"mapRoles": ""}


def test_an_edit_that_changes_nothing_writes_nothing(api):
    put(api, WITH_ENTRY)
    version = api.read_namespaced_config_map(NAME, NAMESPACE).metadata.resource_version
    edit(api.api_client, partial(with_entry, entry=ENTRY))
    assert api.read_namespaced_config_map(NAME, NAMESPACE).metadata.resource_version == version


def test_the_data_before_the_last_write_is_kept(api):
    put(api, AWS_AUTH)
    edit(api.api_client, partial(with_entry, entry=ENTRY))
    assert data_of(api, BACKUP) == AWS_AUTH
    api.patch_namespaced_config_map(NAME, NAMESPACE, {"data": {"mapUsers": None}})
    between = data_of(api)
    edit(api.api_client, partial(without_entry, entry=ENTRY))
    assert data_of(api, BACKUP) == between
    # The editor's documentation restores it like this.
    api.patch_namespaced_config_map(NAME, NAMESPACE, {"data": data_of(api, BACKUP)})
    assert data_of(api) == between


def test_a_map_that_would_be_too_large_is_refused(api):
    put(api, {**AWS_AUTH, "filling": "x" * (2**20 - sum(map(len, AWS_AUTH.values())))})  # to the last byte
    with pytest.raises(RefusedError, match=r"the map would have 1,048,\d+ bytes of data; a ConfigMap holds 1,048,576"):
        edit(api.api_client, partial(with_entry, entry=ENTRY))
    assert data_of(api)["mapRoles"] == NODES


# What the cluster allows.


@pytest.fixture
def user(control_plane):
    """Makes a kubeconfig for a new user who may do so much in kube-system and no more."""
    rbac: Any = client.RbacAuthorizationV1Api(connect(str(control_plane.kubeconfig)))

    def make(*rules):
        name = f"aws-auth-{uuid4().hex}"
        metadata = {"name": name}
        subject = {"kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io"}
        reference = {"kind": "Role", "name": name, "apiGroup": "rbac.authorization.k8s.io"}
        rules = [{"apiGroups": [""], "resources": ["configmaps"], **rule} for rule in rules]
        rbac.create_namespaced_role(NAMESPACE, {"metadata": metadata, "rules": rules})
        binding = {"metadata": metadata, "subjects": [subject], "roleRef": reference}
        rbac.create_namespaced_role_binding(NAMESPACE, binding)
        return control_plane.kubeconfig_for(name)

    return make


READ = {"verbs": ["get"], "resourceNames": [NAME]}
WRITE = {"verbs": ["get", "update"], "resourceNames": [NAME]}
KEEP = {"verbs": ["patch"], "resourceNames": [BACKUP]}
CREATE = {"verbs": ["create"]}


@pytest.mark.parametrize(
    ("rules", "denied"),
    [([], "cannot get"), ([READ], "cannot update"), ([WRITE], "cannot patch"), ([WRITE, KEEP], "create")],
)
def test_a_user_without_permission_is_told_which_one_is_missing(api, user, capsys, rules, denied):
    put(api, AWS_AUTH)
    assert run_in_process(user(*rules), "add") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: denied: configmaps ")
    assert denied in error
    assert "needed: get, create and update of aws-auth; create and patch of aws-auth-before-teleport-eks" in error
    assert error.count("\n") == 1
    assert data_of(api) == AWS_AUTH


def test_the_permissions_in_the_message_are_enough(api, user):
    put(api, AWS_AUTH)
    kubeconfig = user(WRITE, KEEP, CREATE)
    for action in ("add", "remove"):
        assert run_in_process(kubeconfig, action) == 0
    assert data_of(api) == AWS_AUTH
    api.delete_namespaced_config_map(NAME, NAMESPACE)
    assert run_in_process(kubeconfig, "add") == 0


def test_a_dry_run_needs_only_the_permission_to_read(api, user, capsys):
    put(api, AWS_AUTH)
    kubeconfig = user(READ)
    assert run_in_process(kubeconfig, "add", "--dry-run") == 0
    said = capsys.readouterr().out
    assert said.startswith("--- aws-auth/mapRoles\n+++ aws-auth/mapRoles (new)\n@@")
    assert '+- rolearn: "arn:aws:iam::111122223333:role/teleport"' in said
    assert data_of(api) == AWS_AUTH
    assert run_in_process(kubeconfig, "show") == 0


def test_a_write_that_the_server_refuses_leaves_the_map_and_its_backup(api, control_plane, capsys):
    """As EKS's webhook refuses a map; here the map is immutable."""
    put(api, AWS_AUTH)
    api.patch_namespaced_config_map(NAME, NAMESPACE, {"immutable": True})
    assert run_in_process(control_plane.kubeconfig, "add") == 1
    assert capsys.readouterr().err.startswith("error: the API server refused: ")
    assert data_of(api) == AWS_AUTH
    with pytest.raises(ApiException, match="404"):
        data_of(api, BACKUP)


# The command.


def run_in_process(kubeconfig, action, *options):
    return command.main([action, "--kubeconfig", str(kubeconfig), *OPTIONS, *options])


def test_the_command_prints_what_it_did(api, control_plane, capsys):
    put(api, {**AWS_AUTH, "mapUsers": f"- userarn: {ACCOUNT}/with/path/teleport\n"})

    def line(action, *options):
        assert run_in_process(control_plane.kubeconfig, action, *options) == 0
        out, err = capsys.readouterr()
        return err or out.partition(": ")[0]

    assert line("show") == "mapUsers"
    assert line("add", "--adopt") == "moved from mapUsers"
    assert line("add") == "already there"
    assert line("show") == "present"
    assert line("add", "--group", "more") == "replaced"
    assert line("show") == "different"
    assert line("remove") == "warning: arn:aws:iam::111122223333:role/teleport is mapped differently; left unchanged\n"
    assert line("remove", "--group", "more") == "removed"
    assert line("remove") == "nothing to remove"
    assert line("show") == "absent"
    assert data_of(api) == {**AWS_AUTH, "mapUsers": ""}


def test_the_command_reads_the_kubeconfig_from_standard_input(api, control_plane):
    put(api, AWS_AUTH)
    command = [sys.executable, "-m", "teleport_eks.aws_auth", "add", "--kubeconfig", "/dev/stdin", *OPTIONS]
    kubeconfig = control_plane.kubeconfig.read_text()
    done = subprocess.run(command, input=kubeconfig, text=True, capture_output=True, timeout=300, check=False)
    line = "added: arn:aws:iam::111122223333:role/teleport as teleport in teleport-group\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, line, "")
    assert data_of(api) == WITH_ENTRY


def test_a_kubeconfig_that_runs_a_program_for_its_credentials(api, control_plane, tmp_path: Path):
    """As EKS' own do, by `aws eks get-token`."""
    put(api, AWS_AUTH)
    config = yaml.safe_load(control_plane.kubeconfig.read_text())
    user = config["users"][0]["user"]
    status = {
        "clientCertificateData": base64.b64decode(user["client-certificate-data"]).decode(),
        "clientKeyData": base64.b64decode(user["client-key-data"]).decode(),
    }
    version = "client.authentication.k8s.io/v1beta1"
    credential = tmp_path / "credential.json"
    credential.write_text(json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status}))
    config["users"][0]["user"] = {"exec": {"apiVersion": version, "command": "cat", "args": [str(credential)]}}
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    assert run_in_process(kubeconfig, "add") == 0

    credential.write_text("no credential")
    assert run_in_process(kubeconfig, "remove") == 1
    assert configmap.status(data_of(api), ENTRY) == "present"

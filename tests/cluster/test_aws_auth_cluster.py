"""The editor against a real API server: many writers, and everything that goes wrong between a read and a write."""

import base64
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml
from kubernetes import client
from kubernetes.client import ApiException

from components.aws_auth import __main__ as command
from components.aws_auth import configmap
from components.aws_auth.configmap import BACKUP, NAME, NAMESPACE, connect, edit, with_entry, without_entry
from components.aws_auth.text import Entry, RefusedError, add, remove
from sandbox.control_plane import ControlPlane

ACCOUNT = "arn:aws:iam::111122223333:role"
OURS = Entry(f"{ACCOUNT}/teleport", "teleport", ("teleport-group",))
OPTIONS = ["--role-arn", f"{ACCOUNT}/with/path/teleport", "--username", "teleport", "--group", "teleport-group"]
NODES = f"""\
# the nodes: do not touch
- rolearn: {ACCOUNT}/nodes   # managed by EKS
  username: system:node:{{{{EC2PrivateDNSName}}}}
  userid: "AROA:nodes"
  groups:
  - system:bootstrappers
  - system:nodes
"""
DATA = {"mapRoles": NODES, "mapUsers": "# nobody\n[]\n", "mapAccounts": "- 012345670123\n"}


@pytest.fixture
def api(control_plane):
    """A client of an administrator's; before and after, there is no map."""
    api = connect(str(control_plane.kubeconfig))

    def clear():
        for name in (NAME, BACKUP):
            with suppress(ApiException):
                api.delete_namespaced_config_map(name, NAMESPACE)

    clear()
    yield api
    clear()


def put(api, data):
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name=NAME, labels={"somebody": "else"}), data=data)
    api.create_namespaced_config_map(NAMESPACE, body)


def data_of(api, name=NAME):
    return api.read_namespaced_config_map(name, NAMESPACE).data or {}


def role(name):
    return Entry(f"{ACCOUNT}/{name}", f"{name}:{{{{SessionName}}}}", ("teams", name))


def arns(text):
    return [item["rolearn"].rpartition("/")[2] for item in yaml.safe_load(text) or []]


def all_at_once(tasks):
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


@pytest.mark.parametrize("writers", [30, 100])
def test_all_of_many_writers_land(api, control_plane, writers):
    """Half of them add, a quarter removes, and a quarter are others, who patch keys or append entries."""
    leaving = [role(f"leaving-{n}") for n in range(writers // 4)]
    coming = [role(f"coming-{n}") for n in range(writers // 2)]
    others = range(writers - len(leaving) - len(coming))
    text = NODES
    for entry in leaving:
        text = add(text, entry)
    put(api, {**DATA, "mapRoles": text})

    clients = [connect(str(control_plane.kubeconfig)) for _ in range(writers)]
    tasks: list[Any] = [partial(edit, clients.pop(), partial(without_entry, entry=e)) for e in leaving]
    tasks += [partial(edit, clients.pop(), partial(with_entry, entry=e)) for e in coming]
    for n in others:
        patch = {"data": {f"other-{n}": "theirs"}}
        tasks.append(
            partial(append_as_others_do, clients.pop(), f"other-{n}")
            if n % 3 == 0
            else partial(clients.pop().patch_namespaced_config_map, NAME, NAMESPACE, patch)
        )
    all_at_once(tasks)

    found = data_of(api)
    appended = {f"other-{n}" for n in others if n % 3 == 0}
    assert sorted(arns(found["mapRoles"])) == sorted({"nodes", *appended, *(f"coming-{n}" for n in range(len(coming)))})
    assert {k for k in found if k.startswith("other-")} == {f"other-{n}" for n in others if n % 3}
    assert {k: v for k, v in found.items() if not k.startswith(("other-", "mapRoles"))} == {
        k: v for k, v in DATA.items() if k != "mapRoles"
    }

    # Without them it is, byte for byte, what it was and what the others appended.
    text = found["mapRoles"]
    for entry in coming:
        text = remove(text, entry)
    assert text.startswith(NODES)
    assert sorted(text.removeprefix(NODES).splitlines()) == sorted(f"- rolearn: {ACCOUNT}/{name}" for name in appended)


def test_thirty_come_and_go_and_the_bytes_are_the_old_ones(api, control_plane):
    put(api, DATA)
    entries = [role(f"team-{n}") for n in range(30)]
    clients = [connect(str(control_plane.kubeconfig)) for _ in entries]
    for change in (with_entry, without_entry):
        all_at_once([partial(edit, c, partial(change, entry=e)) for c, e in zip(clients, entries, strict=True)])
        assert len(arns(data_of(api)["mapRoles"])) == (31 if change is with_entry else 1)
    assert data_of(api) == DATA
    assert api.read_namespaced_config_map(NAME, NAMESPACE).metadata.labels == {"somebody": "else"}


def test_many_writers_find_no_map_and_one_creates_it(api, control_plane):
    entries = [role(f"team-{n}") for n in range(10)]
    clients = [connect(str(control_plane.kubeconfig)) for _ in entries]
    all_at_once([partial(edit, c, partial(with_entry, entry=e)) for c, e in zip(clients, entries, strict=True)])
    assert sorted(arns(data_of(api)["mapRoles"])) == sorted(f"team-{n}" for n in range(10))


def test_the_api_server_is_killed_in_the_middle_and_comes_back(api, control_plane):
    put(api, DATA)
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
    assert sorted(arns(data_of(api)["mapRoles"])) == sorted(["nodes", *(f"team-{n}" for n in range(20))])


def test_a_storm_of_conflicts_passes(api, control_plane):
    put(api, DATA)
    other, over, writes = connect(str(control_plane.kubeconfig)), threading.Event(), []

    def storm():
        while len(tries) < 8 and not over.is_set():
            other.patch_namespaced_config_map(NAME, NAMESPACE, {"data": {"storm": str(len(writes))}})
            writes.append(1)

    tries = []

    def change(data):
        tries.append(1)
        seen = len(writes)
        while len(writes) < seen + 2 and thread.is_alive():
            time.sleep(0.01)  # whatever was read is old by now
        return with_entry(data, OURS)

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        edit(api, change)
    finally:
        over.set()
        thread.join()
    assert len(tries) >= 8
    assert data_of(api) == {**DATA, "mapRoles": add(NODES, OURS), "storm": str(len(writes) - 1)}


class Flaky:
    """The API, whose ``replace`` (not the dry run) first fails in the given ways."""

    def __init__(self, api, *failures, lost=False):
        self.api, self.failures, self.lost = api, list(failures), lost

    def __getattr__(self, name):
        return getattr(self.api, name)

    def replace_namespaced_config_map(self, *args, **kwargs):
        if "dry_run" in kwargs or not self.failures:
            return self.api.replace_namespaced_config_map(*args, **kwargs)
        if self.lost:
            self.api.replace_namespaced_config_map(*args, **kwargs)
        raise self.failures.pop(0)


def test_a_server_that_is_busy_or_breaks_off_is_asked_again(api):
    put(api, DATA)
    failures = [ApiException(429), ApiException(500), ApiException(503), urllib3.exceptions.ProtocolError("gone")]
    flaky = Flaky(api, *failures)
    edit(flaky, partial(with_entry, entry=OURS))  # type: ignore[arg-type]
    assert not flaky.failures
    assert data_of(api)["mapRoles"] == add(NODES, OURS)


def test_a_write_whose_answer_was_lost_is_not_done_twice(api):
    put(api, DATA)
    flaky = Flaky(api, urllib3.exceptions.ReadTimeoutError(None, "", "no answer"), lost=True)  # type: ignore[arg-type]
    edit(flaky, partial(with_entry, entry=OURS))  # type: ignore[arg-type]
    assert data_of(api)["mapRoles"] == add(NODES, OURS)


def test_the_map_is_deleted_meanwhile(api):
    put(api, DATA)
    seen = []

    def change(data):
        if not seen:
            api.delete_namespaced_config_map(NAME, NAMESPACE)
        seen.append(data)
        return with_entry(data, OURS)

    assert edit(api, change)[0] == {}
    assert seen == [DATA, {}]
    assert data_of(api) == {"mapRoles": add("", OURS)}


def test_the_map_is_made_anew_meanwhile(api):
    put(api, DATA)
    seen = []

    def change(data):
        if not seen:
            api.delete_namespaced_config_map(NAME, NAMESPACE)
            put(api, {"mapRoles": "# new\n"})
        seen.append(data)
        return with_entry(data, OURS)

    edit(api, change)
    assert data_of(api) == {"mapRoles": add("# new\n", OURS)}


def test_without_a_map_there_is_nothing_to_remove_and_none_is_made(api):
    assert edit(api, partial(without_entry, entry=OURS)) == ({}, {})
    with pytest.raises(ApiException, match="404"):
        data_of(api)


def test_a_map_that_we_created_stays_empty(api):
    edit(api, partial(with_entry, entry=OURS))
    edit(api, partial(without_entry, entry=OURS))
    assert data_of(api) == {"mapRoles": ""}


def test_a_map_without_data_gets_ours(api):
    put(api, None)
    edit(api, partial(with_entry, entry=OURS))
    assert data_of(api) == {"mapRoles": add("", OURS)}


def test_what_is_as_asked_is_not_written(api):
    put(api, {**DATA, "mapRoles": add(NODES, OURS)})
    version = api.read_namespaced_config_map(NAME, NAMESPACE).metadata.resource_version
    edit(api, partial(with_entry, entry=OURS))
    assert api.read_namespaced_config_map(NAME, NAMESPACE).metadata.resource_version == version


def test_the_data_before_the_last_write_is_kept(api):
    put(api, DATA)
    edit(api, partial(with_entry, entry=OURS))
    assert data_of(api, BACKUP) == DATA
    api.patch_namespaced_config_map(NAME, NAMESPACE, {"data": {"mapUsers": None}})
    between = data_of(api)
    edit(api, partial(without_entry, entry=OURS))
    assert data_of(api, BACKUP) == between
    # And back it goes, as the editor's documentation has it.
    api.patch_namespaced_config_map(NAME, NAMESPACE, {"data": data_of(api, BACKUP)})
    assert data_of(api) == between


def test_a_map_that_would_be_too_large_is_refused(api):
    put(api, {**DATA, "filling": "x" * (2**20 - sum(map(len, DATA.values())))})  # to the last byte
    with pytest.raises(RefusedError, match=r"the map would have 1,048,\d+ bytes of data; a ConfigMap holds 1,048,576"):
        edit(api, partial(with_entry, entry=OURS))
    assert data_of(api)["mapRoles"] == NODES


@pytest.mark.parametrize("text", ["- rolearn: a\n\tusername: b\n", "- rolearn: a\n---\n- rolearn: b\n", "a: b\n"])
def test_a_malformed_map_is_not_written(api, text):
    put(api, {"mapRoles": text})
    with pytest.raises(RefusedError, match=r"mapRoles, line \d+, column \d+"):
        edit(api, partial(with_entry, entry=OURS))
    assert data_of(api) == {"mapRoles": text}
    with pytest.raises(ApiException, match="404"):
        data_of(api, BACKUP)


# What the cluster allows.


@pytest.fixture
def user(control_plane, request):
    """Makes a kubeconfig for a user who may do so much in kube-system and no more."""
    rbac: Any = client.RbacAuthorizationV1Api(connect(str(control_plane.kubeconfig)).api_client)
    made = []

    def make(*rules):
        name = f"aws-auth-{len(made)}-{abs(hash(request.node.name)) % 10**6}"
        made.append(name)
        metadata = {"name": name}
        subject = {"kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io"}
        reference = {"kind": "Role", "name": name, "apiGroup": "rbac.authorization.k8s.io"}
        rules = [{"apiGroups": [""], "resources": ["configmaps"], **rule} for rule in rules]
        rbac.create_namespaced_role(NAMESPACE, {"metadata": metadata, "rules": rules})
        binding = {"metadata": metadata, "subjects": [subject], "roleRef": reference}
        rbac.create_namespaced_role_binding(NAMESPACE, binding)
        return control_plane.kubeconfig_for(name)

    yield make
    for name in made:
        rbac.delete_namespaced_role_binding(name, NAMESPACE)
        rbac.delete_namespaced_role(name, NAMESPACE)


READ = {"verbs": ["get"], "resourceNames": [NAME]}
WRITE = {"verbs": ["get", "update"], "resourceNames": [NAME]}
KEEP = {"verbs": ["patch"], "resourceNames": [BACKUP]}
CREATE = {"verbs": ["create"]}


@pytest.mark.parametrize(
    ("rules", "denied"),
    [([], "cannot get"), ([READ], "cannot update"), ([WRITE], "cannot patch"), ([WRITE, KEEP], "create")],
)
def test_who_may_not_is_told_what_is_missing_and_nothing_is_written(api, user, capsys, rules, denied):
    put(api, DATA)
    assert run_in_process(user(*rules), "add") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: denied: configmaps ")
    assert denied in error
    assert "needed: get, create and update of aws-auth; create and patch of aws-auth-before-teleport-eks" in error
    assert error.count("\n") == 1
    assert data_of(api) == DATA


def test_what_is_said_to_be_needed_is_enough(api, user):
    put(api, DATA)
    kubeconfig = user(WRITE, KEEP, CREATE)
    for action in ("add", "remove"):
        assert run_in_process(kubeconfig, action) == 0
    assert data_of(api) == DATA
    api.delete_namespaced_config_map(NAME, NAMESPACE)
    assert run_in_process(kubeconfig, "add") == 0


def test_who_may_only_read_sees_what_would_be_done(api, user, capsys):
    put(api, DATA)
    kubeconfig = user(READ)
    assert run_in_process(kubeconfig, "add", "--dry-run") == 0
    assert '+- rolearn: "arn:aws:iam::111122223333:role/teleport"' in capsys.readouterr().out
    assert run_in_process(kubeconfig, "show") == 0


def test_what_admission_refuses_is_neither_written_nor_kept(api, capsys, control_plane):
    """As on EKS, where a webhook reads the map; here it is a policy that the API server itself applies."""
    admission: Any = client.AdmissionregistrationV1Api(api.api_client)
    name = "aws-auth-test"
    policy = {
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["UPDATE"],
                        "resources": ["configmaps"],
                        "resourceNames": [NAME],
                    }
                ]
            },
            "validations": [{"expression": "!('mapRoles' in object.data)", "message": "the webhook says no"}],
        },
    }
    put(api, DATA)

    def is_refused():
        body = api.read_namespaced_config_map(NAME, NAMESPACE)
        try:
            api.replace_namespaced_config_map(NAME, NAMESPACE, body, dry_run="All")
        except ApiException as e:
            return "says no" in str(e.body)
        return False

    def wait_until(refused):
        until = time.monotonic() + 60  # it takes a moment until a policy is applied, or no longer
        while is_refused() != refused:
            assert time.monotonic() < until
            time.sleep(0.1)

    binding = {"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}}
    admission.create_validating_admission_policy(policy)
    admission.create_validating_admission_policy_binding(binding)
    try:
        wait_until(refused=True)
        assert run_in_process(control_plane.kubeconfig, "add") == 1
        assert capsys.readouterr().err.startswith("error: the API server refused: ")
        with pytest.raises(ApiException, match="404"):
            data_of(api, BACKUP)
    finally:
        admission.delete_validating_admission_policy_binding(name)
        admission.delete_validating_admission_policy(name)
        wait_until(refused=False)
    assert data_of(api) == DATA


# The command.


def run_in_process(kubeconfig, action, *options):
    return command.main([action, "--kubeconfig", str(kubeconfig), *OPTIONS, *options])


def test_each_outcome_has_its_line(api, control_plane, capsys):
    put(api, {**DATA, "mapUsers": f"- userarn: {ACCOUNT}/with/path/teleport\n"})

    def line(action, *options, code=0):
        assert run_in_process(control_plane.kubeconfig, action, *options) == code
        out, err = capsys.readouterr()
        return out.partition(": ")[0] if not code else err

    assert line("show") == "mapUsers"
    assert "--adopt moves it" in line("add", code=1)
    assert line("add", "--adopt") == "moved from mapUsers"
    assert line("add") == "already there"
    assert line("show") == "present"
    assert line("add", "--group", "more") == "replaced"
    assert line("show") == "different"
    assert line("remove") == "nothing to remove"
    assert line("remove", "--group", "more") == "removed"
    assert line("show") == "absent"
    assert data_of(api) == {**DATA, "mapUsers": ""}


def test_an_entry_that_is_no_longer_ours_is_left_with_a_warning(api, control_plane, capsys):
    theirs = add(NODES, OURS).replace('"teleport-group"', '"theirs"')
    put(api, {**DATA, "mapRoles": theirs})
    assert run_in_process(control_plane.kubeconfig, "remove") == 0
    assert "warning: arn:aws:iam::111122223333:role/teleport is mapped differently" in capsys.readouterr().err
    assert data_of(api)["mapRoles"] == theirs


def test_end_to_end_with_the_kubeconfig_on_standard_input(api, control_plane):
    put(api, DATA)

    def run(action, *options):
        command = [
            sys.executable,
            "-m",
            "components.aws_auth",
            action,
            "--kubeconfig",
            "/dev/stdin",
            *OPTIONS,
            *options,
        ]
        kubeconfig = control_plane.kubeconfig.read_text()
        return subprocess.run(command, input=kubeconfig, text=True, capture_output=True, timeout=300, check=False)

    dry = run("add", "--dry-run")
    assert (dry.returncode, dry.stderr) == (0, "")
    assert dry.stdout.startswith("--- aws-auth/mapRoles\n+++ aws-auth/mapRoles (new)\n@@")
    assert data_of(api) == DATA

    added = run("add")
    line = "added: arn:aws:iam::111122223333:role/teleport as teleport in teleport-group\n"
    assert (added.returncode, added.stdout, added.stderr) == (0, line, "")
    assert data_of(api) == {**DATA, "mapRoles": add(NODES, OURS)}

    assert run("remove").stdout.startswith("removed: ")
    assert data_of(api) == DATA

    api.patch_namespaced_config_map(NAME, NAMESPACE, {"data": {"mapRoles": "- a: [\n"}})
    broken = run("add")
    assert (broken.returncode, broken.stdout) == (1, "")
    assert broken.stderr.startswith("error: mapRoles, line 2, column 1: ")
    assert broken.stderr.count("\n") == 1


def test_a_kubeconfig_that_runs_a_program_for_its_credentials(api, control_plane, tmp_path: Path):
    """As EKS' own do, by `aws eks get-token`."""
    put(api, DATA)
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
    assert configmap.status(data_of(api), OURS) == "present"


def test_an_api_server_that_is_not_there_is_given_up_with_a_reason(control_plane, tmp_path, capsys, monkeypatch):
    config = yaml.safe_load(control_plane.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    monkeypatch.setattr(configmap, "PATIENCE_UNANSWERED", 1)
    assert run_in_process(kubeconfig, "add") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: gave up after ")
    assert "cannot reach the API server" in error
    assert "refused" in error
    assert error.count("\n") == 1


def test_a_kubeconfig_that_is_none(tmp_path, capsys):
    for text in ("", "- a\n", "a: [", "{}"):
        (tmp_path / "kubeconfig").write_text(text)
        assert run_in_process(tmp_path / "kubeconfig", "add") == 1
        error = capsys.readouterr().err
        assert error.startswith("error: cannot use the kubeconfig: ")
        assert error.count("\n") == 1

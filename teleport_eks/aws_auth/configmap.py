"""The ConfigMap: what its data says of a role, and how to read and write it on the server."""

import json
import random
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TextIO

import urllib3
from kubernetes.client import ApiClient, ApiException, Configuration
from kubernetes.config import load_kube_config

from teleport_eks.aws_auth.text import Document, Entry, Item, RefusedError, add, cut_out, map_arn, parse, remove

NAMESPACE, NAME, BACKUP = "kube-system", "aws-auth", "aws-auth-before-teleport-eks"
LIMIT = 2**20  # bytes of data in a ConfigMap
TIMEOUT = 15  # seconds for one request
PATIENCE, PATIENCE_UNANSWERED = 300, 60  # seconds: a hundred writers at once are done in less
# Threads of one process take turns. Side by side they would slow each other down, because parsing a map takes CPU, and
# the slower a try is, the more often another writer is faster. 300 of them would never be done.
_TURN: AbstractContextManager[Any] = threading.Lock()

Data = dict[str, str]


class UnreachableError(RefusedError):
    """The API server did not answer in time."""


def _in_users(data: Data, entry: Entry) -> tuple[Document, Item] | None:
    try:
        document = parse("mapUsers", data.get("mapUsers", ""))
    except RefusedError:
        return None  # the authenticator cannot read it either, and we do not repair it
    return next(((document, item) for item in document.of(entry)), None)


def status(data: Data, entry: Entry) -> str:
    """How the map has the role: present, different, mapUsers (where the guide of 2019 put it) or absent."""
    if found := parse("mapRoles", data.get("mapRoles", "")).of(entry):
        return "present" if all(i.same(entry) for i in found) else "different"
    return "mapUsers" if _in_users(data, entry) else "absent"


def with_entry(data: Data, entry: Entry, *, adopt: bool = False) -> Data:
    """The data with the entry in ``mapRoles``. With ``adopt``, an entry in ``mapUsers`` for the same role is moved."""
    after = {**data, "mapRoles": add(data.get("mapRoles", ""), entry, adopt=adopt)}
    while (adopt or after != data) and (guide := _in_users(after, entry)):
        if not adopt:
            raise RefusedError(f"mapUsers, line {guide[1].line}: maps {entry.role_arn}; --adopt moves it to mapRoles")
        after["mapUsers"] = cut_out(*guide)
    return after


def without_entry(data: Data, entry: Entry, *, adopt: bool = False) -> Data:
    """The data without the entry in ``mapRoles``; with ``adopt``, without the role in ``mapRoles`` and ``mapUsers``."""
    keys = ("mapRoles", "mapUsers") if adopt else ("mapRoles",)
    return {**data, **{key: remove(data[key], entry, key=key, adopt=adopt) for key in keys if key in data}}


def has(data: Data, username: str, group: str) -> bool:
    """Whether any role at all is mapped to that user in that group."""

    def is_it(fields: dict[str, Any]) -> bool:
        groups = fields.get("groups")
        return fields.get("username") == username and isinstance(groups, list) and group in groups

    return any(is_it(item.fields) for item in parse("mapRoles", data.get("mapRoles", "")).items)


def suspicious_entries(data: Data) -> list[str]:
    """Entries of ``mapRoles`` that probably do not do what their authors meant. Nothing changes them."""
    lines, found = {}, []
    for item in parse("mapRoles", data.get("mapRoles", "")).items:
        arn, where = item.arn.lower(), f"mapRoles, line {item.line}: {item.arn}"
        if arn and arn in lines:
            found.append(f"{where} overrides line {lines[arn]}")
        if ":sts:" in arn:
            found.append(f"{where} never matches: EKS looks a session up by the ARN of its role")
        elif map_arn(arn) != arn:
            found.append(f"{where} never matches: write it without the path, {map_arn(item.arn)}")
        lines[arn] = item.line
    return found


def connect(kubeconfig: str | TextIO) -> ApiClient:
    """A client for the current context of a kubeconfig, which is an open file, or a path such as ``/dev/stdin``."""
    settings = Configuration()
    settings.retries = False  # pyright: ignore[reportAttributeAccessIssue]  # `edit` retries
    try:
        load_kube_config(kubeconfig, client_configuration=settings, persist_config=False)
    except Exception as e:  # the client raises many kinds, depending on what is wrong
        raise RefusedError(f"cannot use the kubeconfig: {' '.join(str(e).split())}") from e
    return ApiClient(settings)


def send(client: ApiClient, method: str, name: str = "", body: Any = None, **query: str) -> dict[str, Any]:
    """A request about a ConfigMap in ``NAMESPACE``, or all, and the object that the server answers with.

    Not CoreV1Api: it imports a model of each kind of object, which takes a second and 90 MiB.
    """
    path = f"/api/v1/namespaces/{NAMESPACE}/configmaps" + (f"/{name}" if name else "")
    kind = "application/json-patch+json" if method == "PATCH" else "application/json"
    headers = {"Accept": "application/json", "Content-Type": kind}
    request = client.param_serialize(
        method, path, header_params=headers, query_params=[*query.items()], body=body, auth_settings=["BearerToken"]
    )
    answer = client.call_api(*request, _request_timeout=TIMEOUT)
    answer.read()
    if not 200 <= answer.status <= 299:
        raise ApiException(http_resp=answer)
    return json.loads(answer.data or "{}")


def read(client: ApiClient) -> dict[str, Any] | None:
    """The ConfigMap with all fields that the server sends; None if it does not exist."""
    try:
        return send(client, "GET", NAME)
    except ApiException as e:
        if e.status == 404:
            return None
        raise


def _keep(client: ApiClient, data: Data) -> None:
    try:
        send(client, "PATCH", BACKUP, [{"op": "add", "path": "/data", "value": data}])
    except ApiException as e:
        if e.status != 404:
            raise
        send(client, "POST", body={"metadata": {"name": BACKUP}, "data": data})


def _write(client: ApiClient, found: dict[str, Any] | None, data: Data) -> None:
    size = sum(len(v.encode()) for v in data.values())
    if size > LIMIT:
        raise RefusedError(f"the map would have {size:,} bytes of data; a ConfigMap holds {LIMIT:,}")
    if found is None:
        send(client, "POST", body={"metadata": {"name": NAME}, "data": data})
        return
    # With the resourceVersion that was read, the server refuses the write if somebody else wrote in between.
    body = {**found, "data": data}
    send(client, "PUT", NAME, body, dryRun="All")  # the copy changes only after EKS's webhook has accepted the map
    _keep(client, found.get("data") or {})
    send(client, "PUT", NAME, body)


def edit(client: ApiClient, change: Callable[[Data], Data], *, dry_run: bool = False) -> tuple[Data, Data]:
    """Reads the map, changes its data and writes it. Returns the data before and after.

    Starts again with the reading if somebody else wrote, created or deleted the map meanwhile, and if the API server
    is busy or away. If only the answer to a write was lost, the next reading finds it done.
    """
    began = answered = time.monotonic()
    pause = 0.1
    while True:
        try:
            with _TURN:
                found = read(client)
                before = (found or {}).get("data") or {}
                after = change(before)
                if after != before and not dry_run:
                    _write(client, found, after)
                return before, after
        except ApiException as e:
            problem = _explain(e)
            # When the server stops, TLS breaks off, and the client's error has no status.
            if e.status or "CERTIFICATE_VERIFY_FAILED" in str(e.reason):
                answered = time.monotonic()
                if e.status not in (404, 409, 429) and not 500 <= (e.status or 0) < 600:
                    raise RefusedError(problem) from e
        except (urllib3.exceptions.HTTPError, OSError) as e:
            problem = f"cannot reach the API server: {e}"
        now = time.monotonic()
        if now > min(began + PATIENCE, answered + PATIENCE_UNANSWERED):
            kind = UnreachableError if now > answered + PATIENCE_UNANSWERED else RefusedError
            raise kind(f"gave up after {now - began:.0f} seconds: {problem}")
        time.sleep(random.uniform(0, pause))  # noqa: S311 - not for a secret
        # Not longer, because of a hundred writers the last ones would only wait for the end of their pauses.
        pause = min(2 * pause, 4)


def _explain(error: ApiException) -> str:
    try:
        message = json.loads(str(error.body))["message"]
    except (ValueError, KeyError, TypeError):
        message = " ".join(str(error.reason).split())
    if error.status == 401 or (error.status == 403 and "system:anonymous" in message):
        return f"the cluster does not accept the kubeconfig's credentials: {message}"
    if error.status == 403 and "admission webhook" not in message:
        return f"denied: {message} (needed: get, create and update of {NAME}; create and patch of {BACKUP})"
    return f"the API server refused: {message}"

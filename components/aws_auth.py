"""The editor of `aws-auth`, the ConfigMap in which EKS maps IAM roles to Kubernetes users.

Nodes, other tools and people keep their entries in the same text, and a wrong one locks all of them out. So one
list item of ``mapRoles`` is put in or taken out as text, and all else stays byte for byte: comments, order,
quoting, line ends, unknown keys, ``mapUsers``, ``mapAccounts``. The result is parsed again and must be what was
there plus or minus our entry, else nothing is written. Removing what was added gives back the original bytes.

    python -m components.aws_auth add|remove|show --kubeconfig FILE --role-arn ARN --username U --group G

``add`` appends the entry with the comment ``# teleport-eks``. By that comment a later ``add`` knows an entry with
other groups for an old one of ours; any other, and any in a JSON list, where no comment can be, is replaced only with
``--adopt``. ``remove`` takes out an entry that is exactly as asked, and warns of one that is not; with ``--adopt`` it
takes out whatever maps the role, also by ``userarn`` or under ``mapUsers``, as setups by the guide of 2019 have it.
With ``--unreachable-ok``, ``remove`` ends well although the API server did not answer for a minute, so that a stack
can be destroyed whose cluster is gone; it then warns of what may be left.
Neither deletes the ConfigMap or its ``mapRoles``: where ``add`` created them, ``remove`` leaves them empty.

Before each write the map's data is kept in ``kube-system/aws-auth-before-teleport-eks``: one object, with the data
before the last write. It stays after ``remove``, whose own write may be the one to take back:

    kubectl -n kube-system get configmap aws-auth-before-teleport-eks -o json | jq '{data}' |
      kubectl -n kube-system patch configmap aws-auth --type merge --patch-file /dev/stdin
"""

import argparse
import difflib
import json
import random
import re
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TextIO

import kubernetes
import urllib3
import yaml
from kubernetes.client import ApiException, CoreV1Api

NAMESPACE, NAME, BACKUP = "kube-system", "aws-auth", "aws-auth-before-teleport-eks"
MARK = "# teleport-eks"
# What the authenticator takes for an empty list although it is none in YAML; other tools have written such maps.
EMPTY = ("", '""', "''", "``")
LIMIT = 2**20  # bytes of data in a ConfigMap
TIMEOUT = 15  # seconds for one request
PATIENCE, PATIENCE_UNANSWERED = 300, 60  # seconds: a hundred writers at once are done in less

Data = dict[str, str]


class RefusedError(Exception):
    """Nothing was written; the text says why, in one line for the operator."""


class UnreachableError(RefusedError):
    """The API server did not answer for as long as we are ready to wait."""


def map_arn(arn: str) -> str:
    """A role's ARN as the authenticator sees a caller's, without path: ``role/team/x/name`` is ``role/name``."""
    return re.sub(r"(:role/).*/", r"\1", arn, flags=re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """A role, by its ARN without path, and what it is in the cluster."""

    role_arn: str
    username: str
    groups: tuple[str, ...]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"arn:aws[\w-]*:iam::\d{12}:role/[\w+=,.@-]{1,64}", self.role_arn, re.ASCII):
            raise RefusedError(f"not like arn:aws:iam::111122223333:role/NAME: {self.role_arn!r}")
        for name in (self.username, *self.groups):
            if not name.strip() or not name.isprintable():
                raise RefusedError(f"not a name for a user or a group: {name!r}")
        if self.username.startswith("system:"):
            raise RefusedError(f"user names that begin with system: are Kubernetes' own: {self.username!r}")

    def fields(self) -> dict[str, Any]:
        return {"rolearn": self.role_arn, "username": self.username, "groups": list(self.groups)}


# ---------------------------------------------------------------------------------------------------------- the text


class _Loader(yaml.SafeLoader):
    """PyYAML's loader, keeping of its one pass the events and where the dashes and commas are."""

    def __init__(self, text: str) -> None:
        self.seen: list[yaml.Event] = []
        self.dashes: list[int] = []
        self.commas: list[int] = []
        super().__init__(text)

    def get_token(self) -> Any:
        token = super().get_token()
        if isinstance(token, yaml.BlockEntryToken):
            self.dashes.append(token.start_mark.index)
        elif isinstance(token, yaml.FlowEntryToken):
            self.commas.append(token.start_mark.index)
        return token

    def get_event(self) -> Any:
        self.seen.append(super().get_event())
        return self.seen[-1]


class _Item:
    """One map of the list: where it is, what a parser sees of it, and what it says."""

    def __init__(self, events: list[yaml.Event], value: dict[Any, Any], key: str) -> None:
        self.start, self.line = events[0].start_mark.index, events[0].start_mark.line + 1
        # A block collection's end has no text of its own: it stands where the next thing begins.
        solid = (e for e in events if isinstance(e, yaml.ScalarEvent) or e.start_mark.index < e.end_mark.index)
        self.end = max(e.end_mark.index for e in solid)
        self.shape = [(type(e), *(v for k, v in vars(e).items() if not k.endswith("_mark"))) for e in events]
        self.fields = {str(k).lower(): v for k, v in value.items()}  # the authenticator ignores the names' case
        self.arn = str(self.fields.get("userarn" if key == "mapUsers" else "rolearn", ""))

    def maps(self, entry: Entry) -> bool:
        """Whether it is meant for the entry's role, be it by a key that works where it stands or not."""
        arns = (str(self.fields.get(key, "")) for key in ("rolearn", "userarn"))
        return entry.role_arn.lower() in (map_arn(arn).lower() for arn in arns)

    def same(self, entry: Entry) -> bool:
        """Whether it does what ``entry`` asks for: the order of groups and the ARN's case change nothing."""

        def meaning(fields: dict[str, Any]) -> dict[str, Any]:
            groups = fields.get("groups")
            groups = sorted(map(repr, groups)) if isinstance(groups, list) else groups
            return {**fields, "rolearn": str(fields.get("rolearn")).lower(), "groups": groups}

        return meaning(self.fields) == meaning(entry.fields())


@dataclass
class _Document:
    key: str
    text: str
    items: list[_Item]
    end: int = 0  # where the content ends: before `...`, or before the `]` of a flow list
    flow: bool = False
    dashes: tuple[int, ...] = ()
    commas: tuple[int, ...] = ()

    def of(self, entry: Entry) -> list[_Item]:
        return [i for i in self.items if map_arn(i.arn).lower() == entry.role_arn.lower()]


def _stands_for_nothing(text: str) -> bool:
    return text.strip() in EMPTY and text.strip(" \r\n") != ""


@lru_cache(maxsize=4)  # one edit asks more than once about the same text
def _parse(key: str, text: str) -> _Document:
    """The list's items with their positions; refuses whatever is not one list of maps."""

    def refusal(mark: Any, problem: str) -> RefusedError:
        where = f"{key}, line {mark.line + 1}, column {mark.column + 1}"
        return RefusedError(f"{where}: {problem}; correct the map by hand first")

    if _stands_for_nothing(text):
        return _Document(key, text, [])
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        data: Any = loader.construct_document(root) if root else None
    except yaml.MarkedYAMLError as e:
        raise refusal(e.problem_mark or e.context_mark, ", ".join(filter(None, (e.context, e.problem)))) from e
    except yaml.reader.ReaderError as e:
        before = text[: e.position]
        column = len(before) - before.rfind("\n") - 1
        raise refusal(yaml.Mark("", e.position, before.count("\n"), column, None, 0), e.reason) from e
    except Exception as e:  # PyYAML's constructors raise anything on the likes of `!!int x` or 2020-13-45
        raise RefusedError(f"{key} cannot be read: {e}; correct the map by hand first") from e

    ends = [e.start_mark.index for e in loader.seen if isinstance(e, yaml.DocumentEndEvent) and e.explicit]
    document = _Document(key, text, [], (*ends, len(text))[0], False, tuple(loader.dashes), tuple(loader.commas))
    if root is None or (isinstance(root, yaml.ScalarNode) and not root.value and not root.style):
        return document
    if not isinstance(root, yaml.SequenceNode):
        raise refusal(root.start_mark, "not a list")
    if root.flow_style:
        document.flow, document.end = True, root.end_mark.index - 1
    depth, parts = 0, []
    for event in loader.seen:
        closes = isinstance(event, yaml.CollectionEndEvent)
        depth -= closes
        if depth == 1 and not closes:
            parts.append([])
        if depth:
            parts[-1].append(event)
        depth += isinstance(event, yaml.CollectionStartEvent)
    for events, value in zip(parts, data, strict=True):
        if not isinstance(value, dict):
            raise refusal(events[0].start_mark, "not a map of rolearn, username, groups")
        document.items.append(_Item(events, value, key))
    return document


def _insert(document: _Document, entry: Entry) -> str:
    text, end = document.text, document.end
    arn, user, *groups = (json.dumps(v, ensure_ascii=False) for v in (entry.role_arn, entry.username, *entry.groups))
    if document.flow:
        item = f'{{"rolearn": {arn}, "username": {user}, "groups": [{", ".join(groups)}]}}'
        if not document.items:
            return text[:end] + item + text[end:]
        last = document.items[-1]
        own_line = re.search(r"\r?\n *\Z", text[: last.start])
        return text[: last.end] + "," + (own_line[0] if own_line else " ") + item + text[last.end :]

    mark = MARK
    if _stands_for_nothing(text):
        mark, text = f"{MARK}, in place of {json.dumps(text)}", ""
    before_dash = text[: document.dashes[0]] if document.dashes else ""
    indent = " " * (len(before_dash) - len(before_dash.rstrip(" ")))
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = [f"- rolearn: {arn} {mark}", f"  username: {user}", "  groups:" if groups else "  groups: []"]
    item = newline.join(indent + line for line in (*lines, *(f"    - {group}" for group in groups)))
    if text[:end] and text[end - 1] not in "\r\n":
        return text + newline + item
    return text[:end] + item + newline + text[end:]


def _cut(document: _Document, item: _Item) -> str:
    text, low, high = document.text, item.start, item.end
    if document.flow:
        between = ""
        if item is not document.items[0]:
            low = max(c for c in document.commas if c < item.start)
            between = text[low + 1 : item.start]
        elif after := [c for c in document.commas if c >= item.end]:
            high = after[0] + 1
            between = text[item.end : after[0]]
        return text[:low] + (between if between.strip() else "") + text[high:]  # a comment there is someone's

    dash = max(d for d in document.dashes if d <= item.start)
    low = len(text[:dash].rstrip(" "))
    if text[high - 1] not in "\r\n":  # as it is where a block scalar ends
        high += len(re.split(r"(?<=\n)|(?<=\r)(?!\n)", text[high:], maxsplit=1)[0])
    if text[high - 1] not in "\r\n":
        low = len(re.sub(r"\r?\n\Z", "", text[:low]))  # the last line has no end: what was before it had none
    rest = text[:low] + text[high:]
    instead = re.search(rf'{MARK}, in place of (".*")', text[low:high])
    if instead and not rest.strip():
        with suppress(ValueError):
            return json.loads(instead[1])
    return rest


def _proved(document: _Document, text: str, items: list[_Item], entry: Entry | None = None) -> str:
    """``text``, if it holds ``items`` and then ``entry`` and nothing else."""
    try:
        found = _parse(document.key, text).items
    except RefusedError:
        found = []
    others, ours = (found[:-1], found[-1:]) if entry else (found, [])
    wanted = [entry.fields()] if entry else []
    if [i.shape for i in others] != [i.shape for i in items] or [i.fields for i in ours] != wanted:
        raise RefusedError(f"{document.key} cannot be edited without changing what else it says; edit it by hand")
    return text


def _without(document: _Document, item: _Item) -> str:
    return _proved(document, _cut(document, item), [i for i in document.items if i is not item])


def add(text: str, entry: Entry, *, adopt: bool = False) -> str:
    """``text`` with ``entry`` as its last item; unchanged if it is there already.

    Another entry for the same role is replaced if it carries our mark, or with ``adopt``; else it is refused.
    """
    document = _parse("mapRoles", text)
    found = document.of(entry)
    if found and all(i.same(entry) for i in found):
        return text
    lines = ", ".join(str(i.line) for i in found)
    if len(found) > 1:
        raise RefusedError(f"mapRoles has {entry.role_arn} {len(found)} times, lines {lines}; leave one, by hand")
    if found:
        if not adopt and MARK not in text[found[0].start : found[0].end]:
            raise RefusedError(f"mapRoles, line {lines}: {entry.role_arn} is mapped otherwise; --adopt replaces it")
        document = _parse("mapRoles", _without(document, found[0]))
    return _proved(document, _insert(document, entry), document.items, entry)


def remove(text: str, entry: Entry, *, key: str = "mapRoles", adopt: bool = False) -> str:
    """``text`` without what is exactly ``entry``, or with ``adopt`` without whatever maps its role."""
    document = _parse(key, text)
    while ours := [i for i in document.items if i.same(entry) or (adopt and i.maps(entry))]:
        document = _parse(key, _without(document, ours[-1]))
    return document.text


# ----------------------------------------------------------------------------------------------------------- the map


def _in_users(data: Data, entry: Entry) -> tuple[_Document, _Item] | None:
    try:
        document = _parse("mapUsers", data.get("mapUsers", ""))
    except RefusedError:
        return None  # the authenticator cannot read it either, and it is not ours to write
    return next(((document, item) for item in document.of(entry)), None)


def status(data: Data, entry: Entry) -> str:
    """What the map says of the role: present, different, mapUsers (as the guide of 2019 put it) or absent."""
    if found := _parse("mapRoles", data.get("mapRoles", "")).of(entry):
        return "present" if all(i.same(entry) for i in found) else "different"
    return "mapUsers" if _in_users(data, entry) else "absent"


def with_entry(data: Data, entry: Entry, *, adopt: bool = False) -> Data:
    """The data with the entry under ``mapRoles``; one for the same role under ``mapUsers`` is moved with ``adopt``."""
    after = {**data, "mapRoles": add(data.get("mapRoles", ""), entry, adopt=adopt)}
    while (adopt or after != data) and (guide := _in_users(after, entry)):
        if not adopt:
            raise RefusedError(f"mapUsers, line {guide[1].line}: maps {entry.role_arn}; --adopt moves it to mapRoles")
        after["mapUsers"] = _without(*guide)
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

    return any(is_it(item.fields) for item in _parse("mapRoles", data.get("mapRoles", "")).items)


def oddities(data: Data) -> list[str]:
    """What in ``mapRoles`` the authenticator does not take as its authors meant; none of it is touched."""
    lines, found = {}, []
    for item in _parse("mapRoles", data.get("mapRoles", "")).items:
        arn, where = item.arn.lower(), f"mapRoles, line {item.line}: {item.arn}"
        if arn and arn in lines:
            found.append(f"{where} overrides line {lines[arn]}")
        if ":sts:" in arn:
            found.append(f"{where} never matches: a session is looked up by the ARN of its role")
        elif map_arn(arn) != arn:
            found.append(f"{where} never matches: it has to be without path, {map_arn(item.arn)}")
        lines[arn] = item.line
    return found


# ------------------------------------------------------------------------------------------------------- the cluster


def connect(kubeconfig: str | TextIO) -> CoreV1Api:
    """A client for the current context of a kubeconfig: an open file, or a file's name, which may be ``/dev/stdin``."""
    settings = kubernetes.client.Configuration()
    settings.retries = False  # pyright: ignore[reportAttributeAccessIssue]  # `edit` does that
    try:
        kubernetes.config.load_kube_config(kubeconfig, client_configuration=settings, persist_config=False)
    except Exception as e:  # it raises whatever its content leads to
        raise RefusedError(f"the kubeconfig cannot be used: {' '.join(str(e).split())}") from e
    return CoreV1Api(kubernetes.client.ApiClient(settings))


def read(api: CoreV1Api) -> dict[str, Any] | None:
    """The ConfigMap as the server sends it, whatever fields it has; None if there is none."""
    try:
        answer: Any = api.read_namespaced_config_map(NAME, NAMESPACE, _preload_content=False, _request_timeout=TIMEOUT)
    except ApiException as e:
        if e.status == 404:
            return None
        raise
    return json.loads(answer.data)


def _keep(api: CoreV1Api, data: Data) -> None:
    try:
        replace: Any = [{"op": "add", "path": "/data", "value": data}]
        api.patch_namespaced_config_map(BACKUP, NAMESPACE, replace, _request_timeout=TIMEOUT)
    except ApiException as e:
        if e.status != 404:
            raise
        body: Any = {"metadata": {"name": BACKUP}, "data": data}
        api.create_namespaced_config_map(NAMESPACE, body, _request_timeout=TIMEOUT)


def _write(api: CoreV1Api, found: dict[str, Any] | None, data: Data) -> None:
    size = sum(len(v.encode()) for v in data.values())
    if size > LIMIT:
        raise RefusedError(f"the map would have {size:,} bytes of data, and a ConfigMap holds {LIMIT:,}")
    if found is None:
        body: Any = {"metadata": {"name": NAME}, "data": data}
        api.create_namespaced_config_map(NAMESPACE, body, _request_timeout=TIMEOUT)
        return
    # The resourceVersion that was read goes along: what was written since then is not overwritten.
    body = {**found, "data": data}
    replace = partial(api.replace_namespaced_config_map, NAME, NAMESPACE, body, _request_timeout=TIMEOUT)
    replace(dry_run="All")  # passes admission, on EKS a webhook that reads the map, before the kept copy changes
    _keep(api, found.get("data") or {})
    replace()


def edit(api: CoreV1Api, change: Callable[[Data], Data], *, dry_run: bool = False) -> tuple[Data, Data]:
    """Reads the map, changes its data and writes it, until nobody wrote in between; the data before and after.

    What may pass is tried again from the reading on: another's write, a map created or deleted meanwhile, an API
    server that is busy or away. A write whose answer was lost is then found done.
    """
    began = answered = time.monotonic()
    pause = 0.1
    while True:
        try:
            found = read(api)
            before = (found or {}).get("data") or {}
            after = change(before)
            if after != before and not dry_run:
                _write(api, found, after)
            return before, after
        except ApiException as e:
            problem = _explain(e)
            # The client's status for a TLS connection that broke off, as it does when the server ends, is none.
            if e.status or "CERTIFICATE_VERIFY_FAILED" in str(e.reason):
                answered = time.monotonic()
                if e.status not in (404, 409, 429) and not 500 <= (e.status or 0) < 600:
                    raise RefusedError(problem) from e
        except (urllib3.exceptions.HTTPError, OSError) as e:
            problem = f"the API server cannot be reached: {e}"
        now = time.monotonic()
        if now > min(began + PATIENCE, answered + PATIENCE_UNANSWERED):
            kind = UnreachableError if now > answered + PATIENCE_UNANSWERED else RefusedError
            raise kind(f"given up after {now - began:.0f} seconds: {problem}")
        time.sleep(random.uniform(0, pause))  # noqa: S311 - it parts writers and keeps no secret
        pause = min(2 * pause, 15)


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


def _diff(before: Data, after: Data) -> str:
    lines = []
    for key in after:
        old, new = before.get(key, "").splitlines(), after[key].splitlines()
        lines += difflib.unified_diff(old, new, f"{NAME}/{key}", f"{NAME}/{key} (new)", lineterm="")
    return "\n".join(lines)


def _left(args: argparse.Namespace) -> str:
    """What an unreachable cluster may keep, whether that matters, and how to take it out later."""
    groups = "".join(f" --group {shlex.quote(group)}" for group in args.group)
    return (
        f"If the cluster is gone, nothing is left. Else its aws-auth may still map {args.role_arn} to the user "
        f"{args.username} in {', '.join(args.group) or 'no group'}. Nobody can use the entry once the role is deleted, "
        "which `pulumi destroy` does next. To take it out, from where the cluster can be reached:\n"
        f"  .venv/bin/python -m components.aws_auth remove --kubeconfig ~/.kube/config --role-arn {args.role_arn} "
        f"--username {shlex.quote(args.username)}{groups}"
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m components.aws_auth", description="One role's entry in aws-auth.")
    parser.add_argument("action", choices=["add", "remove", "show"])
    parser.add_argument("--kubeconfig", required=True, help="a file; /dev/stdin to have it in none")
    parser.add_argument("--role-arn", required=True, help="with or without its path")
    parser.add_argument("--username", required=True)
    parser.add_argument("--group", action="append", default=[], help="can be given again")
    parser.add_argument(
        "--adopt", action="store_true", help="replace or remove an entry for this role that is not ours"
    )
    parser.add_argument(
        "--unreachable-ok", action="store_true", help="remove: only warn when the API server does not answer"
    )
    parser.add_argument("--dry-run", action="store_true", help="print a unified diff and write nothing")
    args = parser.parse_args(argv)
    try:
        entry = Entry(map_arn(args.role_arn), args.username, tuple(args.group))
        change = {"add": with_entry, "remove": without_entry}.get(args.action)
        changed = partial(change, entry=entry, adopt=args.adopt) if change else dict
        before, after = edit(connect(args.kubeconfig), changed, dry_run=args.dry_run)
        was, now = status(before, entry), status(after, entry)
        notes = oddities(after)
    except RefusedError as e:
        if isinstance(e, UnreachableError) and args.unreachable_ok and args.action == "remove":
            print(f"warning: {e}\n{_left(args)}", file=sys.stderr)
            return 0
        print(f"error: {e}", file=sys.stderr)
        return 1
    if args.action == "remove" and now != "absent":
        notes.append(f"{entry.role_arn} is mapped otherwise than asked, and left so")
    for note in notes:
        print(f"warning: {note}", file=sys.stderr)
    if args.dry_run and after != before:
        print(_diff(before, after))
        return 0
    if after == before:
        done = {"add": "already there", "remove": "nothing to remove", "show": now}[args.action]
    elif args.action == "remove":
        done = "removed"
    else:
        done = {"different": "replaced", "mapUsers": "moved from mapUsers"}.get(was, "added")
    print(f"{done}: {entry.role_arn} as {entry.username} in {', '.join(entry.groups) or 'no group'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The text of ``mapRoles``: inserts or removes one list item, and leaves every other byte as it is."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any

import yaml

MARK = "# teleport-eks"
# The authenticator reads these as an empty list. They are not one in YAML, but other tools have written them.
EMPTY = ("", '""', "''", "``")
DEEPEST = 100  # lists and maps in each other


class RefusedError(Exception):
    """Nothing was written. The message tells the operator why, in one line."""


def map_arn(arn: str) -> str:
    """The ARN without the role's path, as the authenticator sees a caller: ``role/team/x/name`` is ``role/name``."""
    return re.sub(r"(:role/).*/", r"\1", arn, flags=re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """A role, by its ARN without path, and its user and groups in the cluster."""

    role_arn: str
    username: str
    groups: tuple[str, ...]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"arn:aws[\w-]*:iam::\d{12}:role/[\w+=,.@-]{1,64}", self.role_arn, re.ASCII):
            raise RefusedError(f"a role's ARN looks like arn:aws:iam::111122223333:role/NAME, not {self.role_arn!r}")
        for name in (self.username, *self.groups):
            if not name.strip() or not name.isprintable():
                raise RefusedError(f"{name!r} cannot be the name of a user or a group")
        if self.username.startswith("system:"):
            raise RefusedError(f"user names that begin with system: are reserved for Kubernetes: {self.username!r}")

    def fields(self) -> dict[str, Any]:
        return {"rolearn": self.role_arn, "username": self.username, "groups": list(self.groups)}


# What an event says, without its positions, by its type.
SAYS = {
    yaml.ScalarEvent: attrgetter("anchor", "tag", "implicit", "value", "style"),
    yaml.MappingStartEvent: attrgetter("anchor", "tag", "implicit", "flow_style"),
    yaml.SequenceStartEvent: attrgetter("anchor", "tag", "implicit", "flow_style"),
    yaml.AliasEvent: attrgetter("anchor"),
}


class Item:
    """One map of the list: its position in the text, its events, and its fields."""

    def __init__(self, events: list[yaml.Event], value: dict[Any, Any], key: str) -> None:
        self.start, self.line = events[0].start_mark.index, events[0].start_mark.line + 1
        # The end of a block collection has no text. Its position is where the next thing begins.
        solid = (e for e in events if isinstance(e, yaml.ScalarEvent) or e.start_mark.index < e.end_mark.index)
        self.end = max(e.end_mark.index for e in solid)
        self.shape = [(type(e), SAYS[type(e)](e) if type(e) in SAYS else None) for e in events]
        self.fields = {str(k).lower(): v for k, v in value.items()}  # the authenticator ignores case here
        self.arn = str(self.fields.get("userarn" if key == "mapUsers" else "rolearn", ""))

    def maps(self, entry: Entry) -> bool:
        """Whether it names the entry's role, in ``rolearn`` or in ``userarn``, even if that key has no effect here."""
        arns = (str(self.fields.get(key, "")) for key in ("rolearn", "userarn"))
        return entry.role_arn.lower() in (map_arn(arn).lower() for arn in arns)

    def same(self, entry: Entry) -> bool:
        """Whether it has the same effect as ``entry``. The order of groups and the case of the ARN do not matter."""

        def meaning(fields: dict[str, Any]) -> dict[str, Any]:
            groups = fields.get("groups")
            groups = sorted(map(repr, groups)) if isinstance(groups, list) else groups
            return {**fields, "rolearn": str(fields.get("rolearn")).lower(), "groups": groups}

        return meaning(self.fields) == meaning(entry.fields())


@dataclass
class Document:
    key: str
    text: str
    items: list[Item]
    end: int  # of the content: before `...`, or before the `]` of a flow list
    flow: bool = False

    def positions(self, token: type[yaml.Token]) -> Iterator[int]:
        return (t.start_mark.index for t in yaml.scan(_readable(self.text), yaml.CSafeLoader) if isinstance(t, token))

    def of(self, entry: Entry) -> list[Item]:
        return [i for i in self.items if map_arn(i.arn).lower() == entry.role_arn.lower()]


def _stands_for_nothing(text: str) -> bool:
    return text.strip() in EMPTY and text.strip(" \r\n") != ""


def _readable(text: str) -> str:
    """For libyaml, which does not count a byte order mark."""
    return re.sub("^\ufeff", "\n", text)


def _events(text: str) -> Iterator[tuple[int, yaml.Event]]:
    """What libyaml finds, each with the number of lists and maps that it is in.

    The authenticator's parser is a port of libyaml, and PyYAML's own takes ten times as long.
    """
    depth = 0
    for event in yaml.parse(_readable(text), yaml.CSafeLoader):
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:  # the loader recurses in C, so many more would kill the process
            problem = f"more than {DEEPEST} lists and maps in each other"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        yield depth, event
        depth += isinstance(event, yaml.CollectionStartEvent)


@lru_cache(maxsize=4)  # one edit parses the same text several times
def parse(key: str, text: str) -> Document:
    """The list's items with their positions. Refuses a text that is not one list of maps."""

    def refusal(mark: Any, problem: str) -> RefusedError:
        where = f"{key}, line {mark.line + 1}, column {mark.column + 1}"
        return RefusedError(f"{where}: {problem}; correct the map by hand first")

    document = Document(key, text, [], end=len(text))
    if _stands_for_nothing(text):
        return document
    root, parts, part = None, [], []
    try:
        for depth, event in _events(text):
            if depth:
                part.append(event)
                if depth == 1 and not isinstance(event, yaml.CollectionStartEvent):
                    parts.append(part)
                    part = []
            elif isinstance(event, yaml.NodeEvent):
                root = event
                document.flow = isinstance(root, yaml.SequenceStartEvent) and root.flow_style
            elif isinstance(event, yaml.SequenceEndEvent if document.flow else yaml.DocumentEndEvent):
                document.end = event.start_mark.index
        data: Any = yaml.load(_readable(text), yaml.CSafeLoader)
    except yaml.MarkedYAMLError as e:
        raise refusal(e.problem_mark or e.context_mark, ", ".join(filter(None, (e.context, e.problem)))) from e
    except yaml.reader.ReaderError as e:
        before = text.encode()[: e.position].decode(errors="ignore")
        column = len(before) - before.rfind("\n") - 1
        raise refusal(yaml.Mark("", len(before), before.count("\n"), column, None, 0), e.reason) from e
    except Exception as e:  # for `!!int x` or 2020-13-45, PyYAML's constructors raise all sorts of errors
        raise RefusedError(f"{key} cannot be read: {e}; correct the map by hand first") from e

    if root is None or (isinstance(root, yaml.ScalarEvent) and not root.value and not root.style):
        return document
    if not isinstance(root, yaml.SequenceStartEvent):
        raise refusal(root.start_mark, "not a list")
    for part, value in zip(parts, data, strict=True):
        if not isinstance(value, dict):
            raise refusal(part[0].start_mark, "not a map of rolearn, username, groups")
        document.items.append(Item(part, value, key))
    return document


def _insert(document: Document, entry: Entry) -> str:
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
    before_dash = text[: next(document.positions(yaml.BlockEntryToken), 0)] if document.items else ""
    indent = " " * (len(before_dash) - len(before_dash.rstrip(" ")))
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = [f"- rolearn: {arn} {mark}", f"  username: {user}", "  groups:" if groups else "  groups: []"]
    item = newline.join(indent + line for line in (*lines, *(f"    - {group}" for group in groups)))
    if text[:end] and text[end - 1] not in "\r\n":
        return text + newline + item
    return text[:end] + item + newline + text[end:]


def _cut(document: Document, item: Item) -> str:
    text, low, high = document.text, item.start, item.end
    if document.flow:
        between = ""
        if item is not document.items[0]:
            low = max(c for c in document.positions(yaml.FlowEntryToken) if c < item.start)
            between = text[low + 1 : item.start]
        elif after := [c for c in document.positions(yaml.FlowEntryToken) if c >= item.end]:
            high = after[0] + 1
            between = text[item.end : after[0]]
        return text[:low] + (between if between.strip() else "") + text[high:]  # somebody's comment stays

    dash = max(d for d in document.positions(yaml.BlockEntryToken) if d <= item.start)
    low = len(text[:dash].rstrip(" "))
    if text[high - 1] not in "\r\n":  # where a block scalar ends, it already is one
        high += len(re.split(r"(?<=\n)|(?<=\r)(?!\n)", text[high:], maxsplit=1)[0])
    if text[high - 1] not in "\r\n":
        low = len(re.sub(r"\r?\n\Z", "", text[:low]))  # the text had no line end at its end, so the rest gets none
    rest = text[:low] + text[high:]
    instead = re.search(rf'{MARK}, in place of (".*")', text[low:high])
    if instead and not rest.strip():
        with suppress(ValueError):
            return json.loads(instead[1])
    return rest


def _proved(document: Document, text: str, items: list[Item], entry: Entry | None = None) -> str:
    """``text``, if it holds ``items`` and then ``entry``, and nothing else. Refuses it otherwise."""
    try:
        found = parse(document.key, text).items
    except RefusedError:
        found = []
    others, ours = (found[:-1], found[-1:]) if entry else (found, [])
    wanted = [entry.fields()] if entry else []
    if [i.shape for i in others] != [i.shape for i in items] or [i.fields for i in ours] != wanted:
        raise RefusedError(f"{document.key} cannot be edited without changing other entries; edit it by hand")
    return text


def cut_out(document: Document, item: Item) -> str:
    return _proved(document, _cut(document, item), [i for i in document.items if i is not item])


def add(text: str, entry: Entry, *, adopt: bool = False) -> str:
    """``text`` with ``entry`` as its last item, or unchanged if it has the entry already.

    Replaces another entry for the same role if it has our mark or with ``adopt``, else refuses.
    """
    document = parse("mapRoles", text)
    found = document.of(entry)
    if found and all(i.same(entry) for i in found):
        return text
    lines = ", ".join(str(i.line) for i in found)
    if len(found) > 1:
        raise RefusedError(
            f"mapRoles has {entry.role_arn} {len(found)} times, lines {lines}; delete all but one by hand"
        )
    if found:
        if not adopt and MARK not in text[found[0].start : found[0].end]:
            raise RefusedError(f"mapRoles, line {lines}: {entry.role_arn} is mapped differently; --adopt replaces it")
        document = parse("mapRoles", cut_out(document, found[0]))
    return _proved(document, _insert(document, entry), document.items, entry)


def remove(text: str, entry: Entry, *, key: str = "mapRoles", adopt: bool = False) -> str:
    """``text`` without the items that are exactly ``entry``; with ``adopt``, without every item that names its role."""
    document = parse(key, text)
    while ours := [i for i in document.items if i.same(entry) or (adopt and i.maps(entry))]:
        document = parse(key, cut_out(document, ours[-1]))
    return document.text

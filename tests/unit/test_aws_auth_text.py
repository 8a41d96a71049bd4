"""The editor's text half: it adds and removes one entry, and changes no other byte of anybody's map."""

import os
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from sandbox.account import AWS_AUTH
from teleport_eks.aws_auth import text as text_module
from teleport_eks.aws_auth.text import Entry, RefusedError, add, remove
from tests.examples import ENTRY, ROLE

QUICK = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("ci", max_examples=60, deadline=None, derandomize=True, suppress_health_check=QUICK)
settings.register_profile("nightly", max_examples=10_000, deadline=None, suppress_health_check=QUICK)
PROFILE = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

NODES = AWS_AUTH["mapRoles"]
WRITTEN = f"""\
- rolearn: "{ROLE}" # teleport-eks
  username: "teleport"
  groups:
    - "teleport-group"
"""
JSON_ENTRY = f'{{"rolearn": "{ROLE}", "username": "teleport", "groups": ["teleport-group"]}}'


def parsed(text: str) -> list[Any]:
    """The list as another reader sees it. What only the authenticator reads as empty is empty."""
    return [] if text.strip() in ('""', "''", "``", "") else yaml.safe_load(text) or []


# Texts that hold no entry.
EMPTY = ["", "\n", "  ", "\t", "\xa0", '""', '\n  ""\n', "''", "``\n", "# nothing yet", "# nothing yet\n", "---\n"]
EMPTY += ["--- # empty\n...\n", "[]", "[ # nothing yet\n]\n"]
# Lists in brackets.
FLOW = [
    "[{rolearn: a}, {rolearn: b, groups: [c]}]",
    "[{rolearn: a},]\n",
    "[{rolearn: a} # b, c\n, # d\n {rolearn: e}\n # f\n]",
    '[{"rolearn":"a","username":"b","groups":["c"]}]',
    '[\n  {\n    "rolearn": "a"\n  },\n  {\n    "rolearn": "b"\n  }\n]\n',
]
# Entries in lines, in every style of YAML.
BLOCK = [
    NODES,
    "-   rolearn: a\n    groups: [b]\n",
    "-\n  # who\n  rolearn: a\n",
    "- rolearn: a\n  username: |\n    b\n",
    "- rolearn: a\n  username: |+\n    b\n\n\n",
    "- rolearn: a\n  username: >-\n    b\n    c\n  # d\n",
    "- groups: # e\n  - |-\n    a\n  # between\n\n  - 'b'\n",
    "- &a\n  rolearn: a\n  groups: &g [b]\n- *a\n- {rolearn: c, groups: *g}\n- <<: *a\n  username: d\n",
    "- ? rolearn\n  : a\n",
    "- !!map\n  rolearn: !!str a\n",
    "- \"rolearn\": 'a''b'\n  'username': \"c\\\"d\\u00e9\"\n",
    "- rolearn: a\n  username: Zoë 🚀 名\n",
    "- {rolearn: a, groups: [b, c]} # d\n- {rolearn: e}\n",
]
BEGINNINGS = ["", "---\n", "%YAML 1.1\n---\n", "\ufeff", "# first\n\n"]
BETWEEN = ["", "# c, ] }: '\n", "\n", "      # deeper\n# shallower\n"]
ENDINGS = ["", "\n\n", "   ", "# end", "# end\n", "...\n", "...\n# end", "      # deeper\n# shallower\n"]


def indented(text: str) -> str:
    return "".join(f"    {line}" for line in text.splitlines(keepends=True))


FORMS = [
    *EMPTY,
    *FLOW,
    *BLOCK,
    *(beginning + NODES for beginning in BEGINNINGS),
    *(NODES + ending for ending in ENDINGS),
    NODES.rstrip("\n"),
    NODES.replace("\n", "\r\n"),
    NODES.replace("\n", "\r\n").rstrip("\r\n"),
    NODES.replace("\n", "\r"),
    indented(NODES),
]


def is_accepted_and_restored(text: str, entry: Entry) -> bool:
    """Adds the entry and removes it again; False if the text is refused."""
    try:
        with_ours = add(text, entry)
    except RefusedError:
        return False
    assert parsed(with_ours) == [*parsed(text), entry.fields()]
    assert add(with_ours, entry) == with_ours
    assert remove(with_ours, entry) == text
    assert remove(text, entry) == text
    return True


@pytest.mark.parametrize("text", FORMS)
def test_add_then_remove_restores_every_byte(text: str) -> None:
    assert is_accepted_and_restored(text, ENTRY)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (NODES, NODES + WRITTEN),
        (f"---\n{NODES}...\n", f"---\n{NODES}{WRITTEN}...\n"),
        ("  - rolearn: a\r\n", "  - rolearn: a\r\n" + "".join(f"  {line}\r\n" for line in WRITTEN.splitlines())),
        ("[]", f"[{JSON_ENTRY}]"),
        ('[\n  {"rolearn": "a"}\n]\n', f'[\n  {{"rolearn": "a"}},\n  {JSON_ENTRY}\n]\n'),
    ],
)
def test_the_entry_is_written_like_the_others(text: str, expected: str) -> None:
    assert add(text, ENTRY) == expected


@pytest.mark.parametrize(
    "name", ["{{SessionName}}", "yes", "0123", "a: b #c", 'say "hi"', "back\\slash", "Zoë 🚀", "~"]
)
def test_names_with_a_meaning_in_yaml_are_quoted(name: str) -> None:
    for groups in ((), (name,)):
        for text in (NODES, "[]", ""):
            assert is_accepted_and_restored(text, Entry(ROLE, name, groups))


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a: b\n", ", line 1, column 1"),  # not a list
        ("null", ", line 1, column 1"),
        ("- rolearn: a\n- b\n", ", line 2, column 3"),  # not a map
        ("- rolearn: a\n  username: [b\n", ", line 3, column 1"),
        ("- rolearn: a\n\tusername: b\n", ", line 2, column 1"),  # a tab
        ("- rolearn: a\n---\n- rolearn: b\n", ", line 2, column 1"),  # two documents
        ("- rolearn: a\n  username: {{SessionName}}\n", ", line 2, column 14"),  # without quotes, a map in a map
        ("- rolearn: *nobody\n", ", line 1, column 12"),
        ("- rolearn: a\n- rolearn: \x07\n", ", line 2, column 12"),
        ("- rolearn: !Ref a\n", ", line 1, column 12"),
        ("- a: 2020-13-45\n", " cannot be read"),
        ("- a: !!int x\n", " cannot be read"),
        ("- a: é\n- é: \x07\n", ", line 2, column 6"),
        ("[" * 1000, ", line 1, column 102"),
        ("[\n" + "[" * 100_000 + "]" * 100_001, ", line 2, column 101"),
    ],
)
def test_a_malformed_map_is_refused_with_its_place(text: str, where: str) -> None:
    for change in (add, remove):
        with pytest.raises(RefusedError, match=f"mapRoles{where}: "):
            change(text, ENTRY)


def test_an_edit_that_would_change_another_entry_is_refused() -> None:
    # The scalar has no line end, and would get one from whatever follows it.
    with pytest.raises(RefusedError, match="cannot be edited without changing"):
        add("- rolearn: a\n  username: |\n    b", ENTRY)
    # Another entry refers to ours.
    with pytest.raises(RefusedError, match="cannot be edited without changing"):
        remove(WRITTEN.replace('"teleport"', '&name "teleport"') + "- {rolearn: a, username: *name}\n", ENTRY)


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "- rolearn: a\n",
        NODES + WRITTEN + WRITTEN,
        NODES.replace("AROA", "AIDA") + WRITTEN,
        NODES + WRITTEN.replace("-group", "-other"),
    ],
)
def test_a_wrong_result_of_an_edit_is_refused(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    monkeypatch.setattr(text_module, "_insert", lambda *_: broken)
    monkeypatch.setattr(text_module, "_cut", lambda *_: broken)
    with pytest.raises(RefusedError, match="cannot be edited"):
        add(NODES, ENTRY)
    with pytest.raises(RefusedError, match="cannot be edited"):
        remove(NODES + "# and\n" + WRITTEN, ENTRY)


# What others do between our add and our remove.


def test_an_entry_that_others_add_after_ours_stays() -> None:
    for text in (NODES, NODES.rstrip("\n"), "", "# c", '""'):
        other = "- rolearn: arn:aws:iam::111122223333:role/later\n"
        between = add(text, ENTRY)
        between += ("" if between.endswith("\n") else "\n") + "# theirs\n" + other
        assert parsed(remove(between, ENTRY)) == [*parsed(text), *parsed(other)]
        assert "# theirs" in remove(between, ENTRY)


def test_an_entry_that_another_tool_rewrote_is_still_ours() -> None:
    for style in (False, None, True):
        rewritten = yaml.safe_dump(parsed(add(NODES, ENTRY)), default_flow_style=style)
        assert parsed(remove(rewritten, ENTRY)) == parsed(NODES)
        assert add(rewritten, ENTRY) == rewritten


@pytest.mark.parametrize("place", [0, 1, 2])
def test_our_entry_is_removed_at_any_place_in_any_style(place: int) -> None:
    items = ["{rolearn: a, groups: [x, y]}", "{rolearn: b}"]
    flow, block = items[:], [f"- {item} # {number}" for number, item in enumerate(items)]
    flow.insert(place, f'{{groups: [teleport-group], username: teleport, rolearn: "{ROLE}"}}')
    block.insert(place, f"- rolearn: {ROLE}\n  groups:\n  - teleport-group\n  username: >-\n    teleport\n\n  # end")
    joined = "\n".join(block)
    for text in (f"[{', '.join(flow)}]", f"[{', '.join(flow)},]", joined, indented(joined), indented(joined) + "\n"):
        assert parsed(remove(text, ENTRY)) == parsed(f"[{', '.join(items)}]")


def test_comments_beside_our_entry_stay() -> None:
    ours = f'{{rolearn: "{ROLE}", username: teleport, groups: [teleport-group]}}'
    flow = f"[{{rolearn: a}} # one, two\n, # three, four\n {ours} # five\n]"
    assert remove(flow, ENTRY) == "[{rolearn: a} # one, two\n # three, four\n  # five\n]"
    block = f"# one\n{WRITTEN}# two\n\n# three\n- rolearn: a\n"
    assert remove(block, ENTRY) == "# one\n# two\n\n# three\n- rolearn: a\n"
    scalar_last = f"- rolearn: {ROLE}\n  groups: [teleport-group]\n  username: |-\n    teleport\n# one\n"
    assert remove(scalar_last, ENTRY) == "# one\n"


def test_the_text_that_our_entry_replaced_comes_back_only_if_nothing_else_is_there() -> None:
    between = add('""', ENTRY)
    assert remove(f"# a note\n{between}", ENTRY) == "# a note\n"
    assert remove(between.replace(r'"\"\""', r'"\"'), ENTRY) == ""
    with pytest.raises(RefusedError):
        remove(between.replace(r'"\"\""', '"- rolearn: a"'), ENTRY)


# The same role, mapped differently.


@pytest.mark.parametrize(
    "same",
    [
        f"- ROLEARN: {ROLE}\n  UserName: teleport\n  Groups: [teleport-group]\n",
        f"- rolearn: {ROLE.replace('/teleport', '/Teleport')}\n  username: teleport\n  groups: [teleport-group]\n",
        WRITTEN + WRITTEN,
    ],
)
def test_an_entry_with_the_same_effect_counts_as_ours(same: str) -> None:
    assert add(NODES + same, ENTRY) == NODES + same
    assert remove(NODES + same, ENTRY) == NODES


def test_the_order_of_groups_does_not_matter() -> None:
    text = add(NODES, Entry(ROLE, "teleport", ("a", "b")))
    assert add(text, Entry(ROLE, "teleport", ("b", "a"))) == text


def test_our_entry_follows_the_settings_without_adopt() -> None:
    earlier = Entry(ROLE, "teleport", ("old-group",))
    for text in ("", '""', NODES, NODES.rstrip("\n")):
        assert add(add(text, earlier), ENTRY) == add(text, ENTRY)
        assert remove(add(text, ENTRY), earlier) == add(text, ENTRY)


def test_a_role_that_is_mapped_twice_is_refused() -> None:
    text = NODES + yaml.safe_dump([{**ENTRY.fields(), "username": name} for name in ("a", "b")])
    for adopt in (False, True):
        with pytest.raises(RefusedError, match="2 times, lines 11, 15; delete all but one by hand"):
            add(text, ENTRY, adopt=adopt)


@pytest.mark.parametrize(
    ("arn", "username", "groups"),
    [
        ("arn:aws:iam::111122223333:role/team/x", "a", ()),
        ("arn:aws:sts::111122223333:assumed-role/a/b", "a", ()),
        ("arn:aws:iam::111122223333:user/a", "a", ()),
        (f"{ROLE}\n", "a", ()),
        (ROLE, " ", ()),
        (ROLE, "system:node:a", ()),
        (ROLE, "a\nb", ()),
        (ROLE, "a", ("b\x7f",)),
        (ROLE, "a", ("",)),
    ],
)
def test_an_entry_that_could_not_work_is_refused(arn: str, username: str, groups: tuple[str, ...]) -> None:
    with pytest.raises(RefusedError):
        Entry(arn, username, groups)


# Maps that nobody has thought of.


@st.composite
def block_maps(draw: st.DrawFn) -> str:
    """Entries of every style, in any order, with anything around them."""
    items = draw(st.lists(st.sampled_from(BLOCK), min_size=1, max_size=5, unique=True))
    text = "".join(item + draw(st.sampled_from(BETWEEN)) for item in items)
    text = draw(st.sampled_from([text, text, indented(text), text.rstrip("\n")]))
    return draw(st.sampled_from(BEGINNINGS)) + text + draw(st.sampled_from(ENDINGS))


@st.composite
def flow_maps(draw: st.DrawFn) -> str:
    gap = st.sampled_from(["", " ", "\n", "\n  ", " # a, b\n", "\n # ] }\n  "])
    items = draw(
        st.lists(st.sampled_from(["{rolearn: a}", "{'rolearn': 'b', groups: [c, d]}", '{"e": "f"}']), max_size=4)
    )
    inside = ",".join(draw(gap) + item + draw(gap) for item in items)
    last = draw(st.sampled_from(["", ","])) if items else ""
    return (
        draw(st.sampled_from(BEGINNINGS))
        + f"[{inside}{last}{draw(gap)}]"
        + draw(st.sampled_from(["", "\n", " # end\n"]))
    )


ANY_TEXT = st.text(st.sampled_from("-ab: \n\r\t[]{}\"'#&*|>,?!%.`\ufeff\x85\u2028"), max_size=25)
MAPS = st.one_of(block_maps(), block_maps(), block_maps(), flow_maps(), st.sampled_from(EMPTY))
LINE_ENDS = st.sampled_from(["\n", "\n", "\r\n", "\r"])
NAMES = st.text(st.characters(min_codepoint=32, exclude_categories=("C", "Z")), min_size=1, max_size=20)
ENTRIES = st.builds(
    lambda name, user, groups: Entry(f"arn:aws:iam::111122223333:role/ours-{name}", user, tuple(groups)),
    st.from_regex(r"[a-zA-Z0-9_+=,.@-]{1,40}", fullmatch=True),
    NAMES.filter(lambda user: not user.startswith("system:")),
    st.lists(NAMES, max_size=4),
)


@settings(PROFILE)
@given(MAPS, LINE_ENDS, ENTRIES)
def test_any_map_in_any_style_is_restored(text: str, line_end: str, entry: Entry) -> None:
    if not is_accepted_and_restored(text.replace("\n", line_end), entry):
        reject()  # too many of these fail the test


@settings(PROFILE)
@given(ANY_TEXT, ENTRIES)
def test_any_text_is_refused_or_restored(text: str, entry: Entry) -> None:
    is_accepted_and_restored(text, entry)


@settings(PROFILE)
@given(MAPS, LINE_ENDS, st.lists(ENTRIES, min_size=2, max_size=4, unique_by=lambda e: e.role_arn.lower()), st.randoms())
def test_several_stacks_come_and_go_in_any_order(text: str, line_end: str, entries: list[Entry], random: Any) -> None:
    now = text = text.replace("\n", line_end)
    try:
        for entry in entries:
            now = add(now, entry)
    except RefusedError:
        reject()
    leaving = random.sample(entries, len(entries))
    for number, entry in enumerate(leaving):
        now = remove(now, entry)
        left = [e.fields() for e in entries if e not in leaving[: number + 1]]
        assert parsed(now) == [*parsed(text), *left]

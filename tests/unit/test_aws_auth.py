"""The editor's text half: what it puts in comes out again, and nothing else of anybody's map moves."""

import json
import os
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from kubernetes.client import ApiException

from components.aws_auth import __main__ as command
from components.aws_auth import configmap
from components.aws_auth import text as text_module
from components.aws_auth.configmap import status, suspicious_entries, with_entry, without_entry
from components.aws_auth.text import Entry, RefusedError, add, map_arn, remove

QUICK = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("ci", max_examples=60, deadline=None, derandomize=True, suppress_health_check=QUICK)
settings.register_profile("nightly", max_examples=10_000, deadline=None, suppress_health_check=QUICK)
PROFILE = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

ARN = "arn:aws:iam::111122223333:role/teleport"
OURS = Entry(ARN, "teleport", ("teleport-group",))
AS_DATA = {"rolearn": ARN, "username": "teleport", "groups": ["teleport-group"]}
NODES = """\
# the nodes: do not touch
- rolearn: arn:aws:iam::111122223333:role/nodes   # managed by EKS
  username: system:node:{{EC2PrivateDNSName}}
  userid: "AROA:nodes"
  groups:
  - system:bootstrappers
  - system:nodes
"""
WRITTEN = f"""\
- rolearn: "{ARN}" # teleport-eks
  username: "teleport"
  groups:
    - "teleport-group"
"""


def parsed(text):
    """The list as another reader sees it; what only the authenticator takes for empty is empty."""
    return [] if text.strip() in ('""', "''", "``", "") else yaml.safe_load(text) or []


def goes_in_and_out(text):
    """Adds, checks the result with a parser of its own, removes; the text in between."""
    with_ours = add(text, OURS)
    assert parsed(with_ours) == [*parsed(text), AS_DATA]
    assert add(with_ours, OURS) == with_ours
    assert remove(with_ours, OURS) == text
    return with_ours


# Every form in which a map was met, and some in which it might be.
FORMS = {
    "nothing": "",
    "a line end": "\n",
    "blanks": "  ",
    "a tab": "\t",
    "a blank that is no YAML blank": "\xa0",
    "quotes": '""',
    "quotes on a line": '\n  ""\n',
    "single quotes": "''",
    "backticks": "``\n",
    "a comment": "# nothing yet",
    "a comment line": "# nothing yet\n",
    "a document without content": "---\n",
    "the same with an end": "--- # empty\n...\n",
    "an empty list": "[]",
    "an empty list in lines": "[ # nothing yet\n]\n",
    "usual": NODES,
    "no line end": NODES.rstrip("\n"),
    "no line end after a comment": NODES + "# end",
    "blank lines at the end": NODES + "\n\n",
    "blanks at the end": NODES + "   ",
    "CRLF": NODES.replace("\n", "\r\n"),
    "CRLF, no line end": NODES.replace("\n", "\r\n").rstrip("\r\n"),
    "CR": NODES.replace("\n", "\r"),
    "indented": "".join(f"    {line}\n" for line in NODES.splitlines()),
    "start and end": f"---\n{NODES}...\n",
    "a comment after the end": f"%YAML 1.1\n---\n{NODES}...\n# end",
    "a byte order mark": "\ufeff" + NODES,
    "a wide dash": "-   rolearn: a\n    groups: [b]\n",
    "the dash alone": "-\n  # who\n  rolearn: a\n",
    "comments deeper and shallower": NODES + "      # deeper\n# shallower\n",
    "a literal scalar last": "- rolearn: a\n  username: |\n    b\n",
    "a literal scalar that keeps its line ends": "- rolearn: a\n  username: |+\n    b\n\n\n",
    "a folded scalar and a comment": "- rolearn: a\n  username: >-\n    b\n    c\n  # d\n",
    "anchors": "- &a\n  rolearn: a\n  groups: &g [b]\n- *a\n- {rolearn: c, groups: *g}\n- <<: *a\n  username: d\n",
    "explicit keys": "- ? rolearn\n  : a\n",
    "tags": "!!seq\n- !!map\n  rolearn: !!str a\n",
    "quoted in every way": "- \"rolearn\": 'a''b'\n  'username': \"c\\\"d\\u00e9\"\n",
    "not ASCII": "- rolearn: a\n  username: Zoë 🚀 名\n",
    "flow items": "- {rolearn: a, groups: [b, c]} # d\n- {rolearn: e}\n",
    "a flow list": "[{rolearn: a}, {rolearn: b, groups: [c]}]",
    "a flow list with a last comma": "[{rolearn: a},]\n",
    "a flow list with comments": "[{rolearn: a} # b, c\n, # d\n {rolearn: e}\n # f\n]",
    "JSON": '[{"rolearn":"a","username":"b","groups":["c"]}]',
    "JSON in lines": '[\n  {\n    "rolearn": "a"\n  },\n  {\n    "rolearn": "b"\n  }\n]\n',
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS.keys())
def test_what_goes_in_comes_out_and_nothing_else_moves(text):
    goes_in_and_out(text)


def test_the_entry_is_written_as_people_write_it():
    assert add(NODES, OURS) == NODES + WRITTEN


def test_the_entry_takes_the_indentation_and_line_ends_of_the_others():
    text = "  - rolearn: a\r\n    groups:\r\n      - b\r\n"
    assert add(text, OURS) == text + "".join(f"  {line}\r\n" for line in WRITTEN.splitlines())


def test_json_stays_json():
    assert json.loads(add(FORMS["JSON in lines"], OURS))[-1] == AS_DATA
    assert json.loads(add("[]", OURS)) == [AS_DATA]


def test_the_entry_goes_before_an_end_of_document():
    assert add(f"---\n{NODES}...\n", OURS) == f"---\n{NODES}{WRITTEN}...\n"


@pytest.mark.parametrize(
    "name", ["{{SessionName}}", "yes", "0123", "a: b #c", 'say "hi"', "back\\slash", "Zoë 🚀", "~"]
)
def test_names_that_yaml_would_take_for_something_else_arrive(name):
    for text in (NODES, "[]", ""):
        assert parsed(add(text, Entry(ARN, name, (name,))))[-1] == {"rolearn": ARN, "username": name, "groups": [name]}


def test_an_entry_without_groups():
    entry = Entry(ARN, "teleport", ())
    for text in (NODES, "[]", ""):
        assert parsed(add(text, entry))[-1]["groups"] == []
        assert remove(add(text, entry), entry) == text


MALFORMED = {
    "a: b\n": (1, 1),  # not a list
    "null": (1, 1),
    "some words": (1, 1),
    "- rolearn: a\n- b\n": (2, 3),  # not a map
    "- rolearn: a\n  username: [b\n": (3, 1),
    "- rolearn: a\n\tusername: b\n": (2, 1),  # a tab
    "- rolearn: a\n---\n- rolearn: b\n": (2, 1),  # two documents
    "- rolearn: a\n  username: {{SessionName}}\n": (2, 14),  # without quotes that is a map in a map
    "- rolearn: a\n username: b\n": (2, 2),
    "- rolearn: *nobody\n": (1, 12),
    "- rolearn: a\n- rolearn: \x07\n": (2, 12),
    "- rolearn: !Ref a\n": (1, 12),
    '- rolearn: "a\n': (2, 1),
}


@pytest.mark.parametrize(("text", "where"), MALFORMED.items())
def test_a_malformed_map_is_refused_with_line_and_column(text, where):
    for change in (add, remove):
        with pytest.raises(RefusedError, match="mapRoles, line {}, column {}: ".format(*where)):
            change(text, OURS)


@pytest.mark.parametrize("text", ["- a: 2020-13-45\n", "- a: !!int x\n", "[" * 5000])
def test_what_pyyaml_cannot_make_anything_of_is_refused_too(text):
    with pytest.raises(RefusedError, match="mapRoles cannot be read: "):
        add(text, OURS)


def test_an_edit_that_would_change_a_neighbour_is_refused():
    # The scalar has no line end, and would get one by whatever follows it.
    with pytest.raises(RefusedError, match="cannot be edited without changing"):
        add("- rolearn: a\n  username: |\n    b", OURS)
    # Another entry refers to ours.
    with pytest.raises(RefusedError, match="cannot be edited without changing"):
        remove(WRITTEN.replace('"teleport"', '&name "teleport"') + "- {rolearn: a, username: *name}\n", OURS)


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
def test_whatever_the_editing_does_wrong_nothing_wrong_comes_out(monkeypatch, broken):
    monkeypatch.setattr(text_module, "_insert", lambda *_: broken)
    monkeypatch.setattr(text_module, "_cut", lambda *_: broken)
    with pytest.raises(RefusedError, match="cannot be edited"):
        add(NODES, OURS)
    with pytest.raises(RefusedError, match="cannot be edited"):
        remove(NODES + "# and\n" + WRITTEN, OURS)


# What others do between our add and our remove.


def test_an_entry_that_others_put_after_ours_stays():
    for text in (NODES, NODES.rstrip("\n"), "", "# c", '""'):
        other = "- rolearn: arn:aws:iam::111122223333:role/later\n"
        between = add(text, OURS)
        between += ("" if between.endswith("\n") else "\n") + "# theirs\n" + other
        assert parsed(remove(between, OURS)) == [*parsed(text), *parsed(other)]
        assert "# theirs" in remove(between, OURS)


def test_an_entry_that_was_written_anew_by_another_tool_is_still_ours():
    for style in (False, None, True):
        anew = yaml.safe_dump(parsed(add(NODES, OURS)), default_flow_style=style)
        assert parsed(remove(anew, OURS)) == parsed(NODES)
        assert add(anew, OURS) == anew


@pytest.mark.parametrize("place", [0, 1, 2])
def test_ours_is_taken_out_of_any_place_in_any_style(place):
    items = ["{rolearn: a, groups: [x, y]}", "{rolearn: b}"]
    flow, block = items[:], [f"- {item} # {number}" for number, item in enumerate(items)]
    flow.insert(place, f'{{groups: [teleport-group], username: teleport, rolearn: "{ARN}"}}')
    block.insert(place, f"- rolearn: {ARN}\n  groups:\n  - teleport-group\n  username: >-\n    teleport\n\n  # end")
    indented = "\n".join(f"  {line}" for line in "\n".join(block).split("\n"))
    assert parsed(remove(f"[{', '.join(flow)}]", OURS)) == parsed(f"[{', '.join(items)}]")
    assert parsed(remove(f"[{', '.join(flow)},]", OURS)) == parsed(f"[{', '.join(items)}]")
    for text in ("\n".join(block), indented, indented + "\n"):
        assert parsed(remove(text, OURS)) == parsed(f"[{', '.join(items)}]")


def test_comments_beside_ours_stay():
    ours = f'{{rolearn: "{ARN}", username: teleport, groups: [teleport-group]}}'
    flow = f"[{{rolearn: a}} # one, two\n, # three, four\n {ours} # five\n]"
    assert remove(flow, OURS) == "[{rolearn: a} # one, two\n # three, four\n  # five\n]"
    block = f"# one\n{WRITTEN}# two\n\n# three\n- rolearn: a\n"
    assert remove(block, OURS) == "# one\n# two\n\n# three\n- rolearn: a\n"


def test_only_the_entry_as_a_whole_stands_for_the_text_it_replaced():
    between = add('""', OURS)
    assert remove(f"# a note\n{between}", OURS) == "# a note\n"
    assert remove(between.replace(r'"\"\""', r'"\"'), OURS) == ""
    with pytest.raises(RefusedError):
        remove(between.replace(r'"\"\""', '"- rolearn: a"'), OURS)


# The same role, mapped differently.


def otherwise(**changes):
    fields = {**AS_DATA, **changes}
    return NODES + yaml.safe_dump([fields])


@pytest.mark.parametrize(
    "text",
    [
        otherwise(username="someone"),
        otherwise(groups=["system:masters"]),
        otherwise(groups=["teleport-group", "more"]),
        otherwise(groups="teleport-group"),
        otherwise(userid="AROA"),
        otherwise(rolearn="arn:aws:iam::111122223333:role/team/x/teleport"),  # with its path it does not match
        otherwise(username=None),
        NODES + f"- RoleARN: {ARN.upper().replace('ROLE/', 'role/')}\n",
    ],
)
def test_another_entry_for_the_role_is_replaced_only_when_asked_and_never_removed(text):
    with pytest.raises(RefusedError, match=r"line 8: .* is mapped differently; --adopt"):
        add(text, OURS)
    assert add(text, OURS, adopt=True) == NODES + WRITTEN
    assert remove(text, OURS) == text
    assert status({"mapRoles": text}, OURS) == "different"


@pytest.mark.parametrize(
    "same",
    [
        f"- ROLEARN: {ARN}\n  UserName: teleport\n  Groups: [teleport-group]\n",
        f"- rolearn: {ARN.replace('/teleport', '/Teleport')}\n  username: teleport\n  groups: [teleport-group]\n",
    ],
)
def test_what_the_authenticator_takes_for_the_same_is_left_as_it_is(same):
    assert add(NODES + same, OURS) == NODES + same
    assert remove(NODES + same, OURS) == NODES


def test_the_order_of_groups_means_nothing():
    text = add(NODES, Entry(ARN, "teleport", ("a", "b")))
    assert add(text, Entry(ARN, "teleport", ("b", "a"))) == text


def test_an_entry_of_ours_follows_the_settings_without_being_asked_for():
    earlier = Entry(ARN, "teleport", ("old-group",))
    for text in ("", '""', NODES, NODES.rstrip("\n")):
        assert add(add(text, earlier), OURS) == add(text, OURS)
        assert remove(add(text, OURS), earlier) == add(text, OURS)


def test_a_role_that_is_there_twice_is_for_people_to_sort_out():
    text = otherwise(username="a") + yaml.safe_dump([{**AS_DATA, "username": "b"}])
    for adopt in (False, True):
        with pytest.raises(RefusedError, match="2 times, lines 8, 12; delete all but one by hand"):
            add(text, OURS, adopt=adopt)


def test_the_same_entry_twice_is_as_asked_and_goes_as_a_whole():
    twice = NODES + WRITTEN + WRITTEN
    assert add(twice, OURS) == twice
    assert remove(twice, OURS) == NODES


# The map as a whole.

GUIDE = f"- userarn: {ARN.replace('role/', 'role/path/')}\n  username: teleport\n  groups:\n  - teleport-group\n"
PEOPLE = "# people\n- userarn: arn:aws:iam::111122223333:user/ann\n"


def test_other_keys_are_not_touched():
    data = {"mapRoles": NODES, "mapUsers": PEOPLE, "mapAccounts": "- 012345670123", "other": "\t\x00"}
    after = with_entry(data, OURS)
    assert after == {**data, "mapRoles": NODES + WRITTEN}
    assert without_entry(after, OURS) == data


def test_a_map_without_roles_keeps_an_empty_key():
    assert without_entry(with_entry({}, OURS), OURS) == {"mapRoles": ""}
    assert without_entry({}, OURS) == {}


def test_the_guides_entry_under_users_is_moved_only_when_asked():
    data = {"mapRoles": NODES, "mapUsers": PEOPLE + GUIDE}
    assert status(data, OURS) == "mapUsers"
    with pytest.raises(RefusedError, match=r"mapUsers, line 3: maps .*; --adopt moves it"):
        with_entry(data, OURS)
    assert with_entry(data, OURS, adopt=True) == {"mapRoles": NODES + WRITTEN, "mapUsers": PEOPLE}
    assert without_entry(data, OURS) == data


@pytest.mark.parametrize("key", ["mapRoles", "mapUsers"])
def test_a_role_of_a_setup_by_hand_is_taken_out_wherever_it_is_but_only_when_asked(key):
    data = {"mapRoles": NODES, "mapUsers": PEOPLE, "mapAccounts": "- 012345670123"}
    by_hand = {**data, key: data[key] + GUIDE.replace("teleport-group", "system:masters")}
    assert without_entry(by_hand, OURS) == by_hand
    assert without_entry(by_hand, OURS, adopt=True) == data


def test_users_that_cannot_be_read_are_left():
    data = {"mapRoles": NODES, "mapUsers": "- [\n"}
    assert with_entry(data, OURS, adopt=True) == {**data, "mapRoles": NODES + WRITTEN}


def test_what_never_matches_or_is_overridden_is_said():
    session, path = "arn:aws:sts::111122223333:assumed-role/a/b", "arn:aws:iam::111122223333:role/p/q/c"
    text = f"- rolearn: {session}\n- rolearn: {path}\n- rolearn: A\n- rolearn: a\n- sso: {{}}\n- sso: {{}}\n"
    assert suspicious_entries({"mapRoles": text}) == [
        f"mapRoles, line 1: {session} never matches: EKS looks a session up by the ARN of its role",
        f"mapRoles, line 2: {path} never matches: write it without the path, arn:aws:iam::111122223333:role/c",
        "mapRoles, line 4: a overrides line 3",
    ]
    goes_in_and_out(text)


def test_an_arn_loses_its_path():
    assert map_arn("arn:aws-cn:iam::111122223333:role/team/x/name") == "arn:aws-cn:iam::111122223333:role/name"
    assert map_arn(ARN) == ARN


@pytest.mark.parametrize(
    ("arn", "username", "groups"),
    [
        ("arn:aws:iam::111122223333:role/team/x", "a", ()),
        ("arn:aws:sts::111122223333:assumed-role/a/b", "a", ()),
        ("arn:aws:iam::111122223333:user/a", "a", ()),
        (f"{ARN}\n", "a", ()),
        (ARN, "", ()),
        (ARN, " ", ()),
        (ARN, "system:node:a", ()),
        (ARN, "a\nb", ()),
        (ARN, "a", ("b\x7f",)),
        (ARN, "a", ("",)),
    ],
)
def test_an_entry_that_could_not_work_is_refused(arn, username, groups):
    with pytest.raises(RefusedError):
        Entry(arn, username, groups)


def test_five_thousand_entries():
    text = "".join(
        f"# team {n}\n- rolearn: arn:aws:iam::111122223333:role/{n}\n  username: team-{n}\n  groups: [teams]\n"
        for n in range(5000)
    )
    assert add(text, OURS) == text + WRITTEN
    assert remove(text + WRITTEN, OURS) == text


# Maps that nobody has thought of.

WORDS = st.text(st.sampled_from("abz019-_.:/@{}[]#&*!|>'\"%`, \\é名🚀~?=<"), min_size=1, max_size=12)
PLAIN = st.from_regex(r"[a-z][a-z0-9:/_-]{0,20}", fullmatch=True)
COMMENTS = st.one_of(st.just(""), st.text(st.sampled_from("abc -[]{},:#'\"é"), max_size=15).map(lambda s: f"# {s}"))


@st.composite
def scalars(draw, indent):
    """One value in one of YAML's styles; block styles end with their line."""
    style = draw(st.sampled_from(["plain", "plain", "single", "double", "json", "literal", "folded", "template"]))
    word = draw(WORDS)
    match style:
        case "single":
            return "'" + word.replace("'", "''") + "'"
        case "double":
            return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case "json":
            return json.dumps(word, ensure_ascii="🚀" not in word)
        case "literal" | "folded":
            chomp = draw(st.sampled_from(["", "-", "+"]))
            lines = draw(st.lists(PLAIN, min_size=1, max_size=3))
            body = "\n".join(" " * (indent + 2) + line for line in lines)
            return ("|" if style == "literal" else ">") + chomp + "\n" + body
        case "template":
            return '"{{EC2PrivateDNSName}}"'
    return draw(PLAIN)


@st.composite
def flow_items(draw):
    fields = draw(st.dictionaries(PLAIN, st.one_of(PLAIN, st.lists(PLAIN, max_size=3)), min_size=1, max_size=4))
    quote = draw(st.sampled_from(["", '"', "'"]))
    colon = draw(st.sampled_from([": ", ":  "]))

    def text(value):
        return f"[{', '.join(map(text, value))}]" if isinstance(value, list) else f"{quote}{value}{quote}"

    return "{" + ", ".join(f"{quote}{key}{quote}{colon}{text(value)}" for key, value in fields.items()) + "}"


@st.composite
def block_maps(draw):
    """A block list with comments, blank lines, anchors, and every style of scalar in every place."""
    indent, step = draw(st.integers(0, 4)), draw(st.integers(1, 4))
    inner = indent + step + 1
    lines, anchors = [], 0

    def between():
        for _ in range(draw(st.integers(0, 2))):
            comment = draw(COMMENTS)
            lines.append(" " * draw(st.integers(0, 6)) + comment if comment else "")

    if draw(st.booleans()):
        lines.append("---")
    between()
    for _ in range(draw(st.integers(1, 4))):
        dash = " " * indent + "-" + " " * step
        if draw(st.integers(0, 4)) == 0:
            lines.append(dash + draw(flow_items()) + " " + draw(COMMENTS))
            between()
            continue
        if anchors and draw(st.integers(0, 3)) == 0:
            lines.append(f"{dash}*a{draw(st.integers(0, anchors - 1))}")
            continue
        if draw(st.integers(0, 3)) == 0:
            lines.append(f"{dash}&a{anchors}")
            anchors += 1
            dash = " " * inner
        for key in draw(st.lists(PLAIN, min_size=1, max_size=4, unique=True)):
            key = draw(st.sampled_from([key, f'"{key}"', f"'{key}'"]))
            if draw(st.booleans()):
                value = draw(scalars(inner))
                block = value[0] in "|>"
                lines.append(f"{dash}{key}: {value}" + ("" if block else " " + draw(COMMENTS)))
            else:
                lines.append(f"{dash}{key}: {draw(COMMENTS)}")
                deeper = inner + draw(st.integers(0, 3))
                for _ in range(draw(st.integers(0, 3))):
                    lines.append(" " * deeper + "- " + draw(scalars(deeper)))
                    if draw(st.booleans()):
                        between()
            dash = " " * inner
        if draw(st.booleans()):
            between()
    ending = draw(st.sampled_from(["\n", "\n", "", "\n\n", "  ", "\n...\n", "\n... # end\n# after", "\n# end"]))
    return "\n".join(lines) + ending


@st.composite
def flow_maps(draw):
    gap = st.sampled_from(["", " ", "\n", "\n  ", " # a, b\n", "\n # ] }\n  "])
    items = draw(st.lists(flow_items(), max_size=4))
    text = "[" + draw(gap)
    for number, item in enumerate(items):
        last = number == len(items) - 1
        text += item + draw(gap) + ("" if last and draw(st.booleans()) else ",") + draw(gap)
    return (
        draw(st.sampled_from(["", "--- ", "# json\n", "\n"]))
        + text
        + "]"
        + draw(st.sampled_from(["", "\n", " # end\n"]))
    )


EMPTIES = st.builds(
    lambda before, core, after: before + core + after,
    st.text(" \n", max_size=3),
    st.sampled_from(["", "", '""', "''", "``", "# c", "[]", "---"]),
    st.text(" \n\t", max_size=3),
)
MAPS = st.one_of(block_maps(), block_maps(), block_maps(), flow_maps(), EMPTIES, st.sampled_from(list(FORMS.values())))
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
def test_any_map_that_is_accepted_comes_back_byte_for_byte(text, line_end, entry):
    text = text.replace("\n", line_end)
    try:
        with_ours = add(text, entry)
    except RefusedError:
        reject()  # too many of these fail the test
    assert parsed(with_ours) == [*parsed(text), entry.fields()]
    assert add(with_ours, entry) == with_ours
    assert remove(with_ours, entry) == text
    assert remove(text, entry) == text


@settings(PROFILE)
@given(MAPS, LINE_ENDS, st.lists(ENTRIES, min_size=2, max_size=4, unique_by=lambda e: e.role_arn.lower()), st.randoms())
def test_several_stacks_come_and_go_in_any_order(text, line_end, entries, random):
    now = text = text.replace("\n", line_end)
    try:
        for entry in entries:
            now = add(now, entry)
    except RefusedError:
        reject()
    leaving = random.sample(entries, len(entries))
    for number, entry in enumerate(leaving):
        now = remove(now, entry)
        assert [i for i in parsed(now) if i not in parsed(text)] == [
            e.fields() for e in entries if e not in leaving[: number + 1]
        ]
    assert parsed(now) == parsed(text)


@settings(PROFILE)
@given(st.text(st.sampled_from("-ab: \n\r\t[]{}\"'#&*|>,?!%.`\ufeff\x85\u2028"), max_size=25), ENTRIES)
def test_no_text_at_all_is_damaged(text, entry):
    try:
        with_ours = add(text, entry)
    except RefusedError:
        return
    assert parsed(with_ours) == [*parsed(text), entry.fields()]
    assert remove(with_ours, entry) == text


@pytest.mark.parametrize(
    ("reason", "is_passing"),
    [
        ("SSLError\nTLS/SSL connection has been closed (EOF) (_ssl.c:992)", True),
        ("SSLError\n[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate", False),
    ],
)
def test_tls_that_breaks_off_is_tried_again_and_a_wrong_certificate_is_not(
    monkeypatch: pytest.MonkeyPatch, reason: str, is_passing: bool
) -> None:
    answers = iter([ApiException(status=0, reason=reason), {"data": {"mapRoles": ""}}])

    def read(_: object) -> object:
        answer = next(answers)
        if isinstance(answer, ApiException):
            raise answer
        return answer

    monkeypatch.setattr(configmap, "read", read)
    nothing: Any = None
    if is_passing:
        assert configmap.edit(nothing, lambda data: data) == ({"mapRoles": ""}, {"mapRoles": ""})
    else:
        with pytest.raises(RefusedError, match="certificate verify failed"):
            configmap.edit(nothing, lambda data: data)


@pytest.mark.parametrize(
    "text", ["", "``", '""', NODES, "- rolearn: x\n  username: teleport\n  groups: teleport-group\n"]
)
def test_a_user_that_no_role_is_mapped_to_is_not_found(text: str) -> None:
    assert not configmap.has({"mapRoles": text}, OURS.username, OURS.groups[0])
    assert not configmap.has({}, OURS.username, OURS.groups[0])


def test_a_user_is_found_whichever_role_it_is_and_a_malformed_map_is_refused() -> None:
    assert configmap.has({"mapRoles": add(NODES, OURS)}, OURS.username, OURS.groups[0])
    assert not configmap.has({"mapRoles": add(NODES, OURS)}, OURS.username, "another")
    with pytest.raises(RefusedError, match="mapRoles, line 1"):
        configmap.has({"mapRoles": "a: [b"}, OURS.username, OURS.groups[0])


def test_a_cluster_that_is_gone_keeps_no_stack_from_being_destroyed(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(configmap, "PATIENCE_UNANSWERED", 0.2)
    kubeconfig = tmp_path / "kubeconfig"
    gone = {"current-context": "x", "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}]}
    server = {"name": "x", "cluster": {"server": "https://127.0.0.1:1"}}
    kubeconfig.write_text(json.dumps({**gone, "clusters": [server], "users": [{"name": "x", "user": {}}]}))

    def run(action: str, *more: str) -> tuple[int, str]:
        entry = ["--role-arn", ARN, "--username", "teleport", "--group", "teleport-group"]
        status = command.main([action, "--kubeconfig", str(kubeconfig), *entry, *more])
        return status, capsys.readouterr().err

    code, said = run("remove", "--unreachable-ok")
    assert code == 0
    assert said.startswith("warning: gave up after ")
    assert f"may still map {ARN}" in said
    assert f"remove --kubeconfig ~/.kube/config --role-arn {ARN} --username teleport --group teleport-group" in said
    for refused in (run("remove"), run("add", "--unreachable-ok")):
        assert refused[0] == 1
        assert refused[1].startswith("error: gave up after ")


def test_what_the_server_refuses_is_an_error_even_where_it_may_be_unreachable(monkeypatch, capsys) -> None:
    def refuse(_: object) -> None:
        raise ApiException(status=403, reason="Forbidden")

    monkeypatch.setattr(command, "connect", lambda _: None)
    monkeypatch.setattr(configmap, "read", refuse)
    options = ["--kubeconfig", "x", "--role-arn", ARN, "--username", "teleport", "--unreachable-ok"]
    assert command.main(["remove", *options]) == 1
    assert "error: denied" in capsys.readouterr().err

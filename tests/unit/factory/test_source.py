"""YAML as plain data: the core schema, places, and everything hostile refused with a place."""

from __future__ import annotations

import os

import pytest

from shared_libs.atomic import ConfigError
from shared_libs.factory.reader import MAX_DEPTH, MAX_NODES
from shared_libs.factory.source import MAX_BYTES, read_data, read_source, read_text


def data_of(text):
    data, problems = read_text(text, "f.yaml")
    problems.raise_if_any()
    return data


def lines_of(text):
    try:
        return read_text(text, "f.yaml")[1].lines()
    except ConfigError as error:
        return list(error.problems)


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("yes", "yes"),
        ("on", "on"),
        ("No", "No"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("12", 12),
        ("-7", -7),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2013-01-01", "2013-01-01"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1.", 1.0),
        (".", "."),
        ("1.2.3", "1.2.3"),
        ("=", "="),
        ("'12'", "12"),
        ('"true"', "true"),
        ('"\\u00e9\\n"', "é\n"),
        ("|\n  a\n  b\n", "a\nb\n"),
        (">-\n  a\n  b\n", "a b"),
        ("😀", "😀"),
    ],
)
def test_scalars_are_those_of_the_core_schema(scalar, value):
    found = data_of(f"k: {scalar}")["k"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_text_even_when_yaml_1_1_reads_them_as_true():
    assert data_of("on: 1\n'1': 2\ny: 3") == {"on": 1, "1": 2, "y": 3}


def test_an_alias_is_its_anchors_value_and_places_are_the_anchors():
    text = "a: &x {k: 1}\nb: *x\nc: [*x, *x]\n"
    data, problems = read_text(text, "f.yaml")
    assert data == {"a": {"k": 1}, "b": {"k": 1}, "c": [{"k": 1}, {"k": 1}]}
    problems.add(("c", 1, "k"), "is wrong")
    assert problems.lines() == ["f.yaml:1:11: c[1].k: is wrong"]


HOSTILE = {
    "python tag": (
        "a: !!python/object/apply:os.system [ls]",
        ["1:4: a: the tag !!python/object/apply:os.system is not allowed; write plain values"],
    ),
    "own tag": ("a: !x 1", ["1:4: a: the tag !x is not allowed; write plain values"]),
    "core tag": ("a: !!binary aGk=", ["1:4: a: the tag !!binary is not allowed; write plain values"]),
    "tagged key": ("!!str a: 1", ["1:1: the tag !!str is not allowed; write plain keys"]),
    "merge key": ("a: &x {b: 1}\nc:\n  <<: *x", ["3:3: c: merge keys (<<) are not allowed; write the keys out"]),
    "number as key": ("a: {1: x}", ["1:5: a: the key 1 is not text; quote it"]),
    "empty key": ("a: {: x}", ["1:5: is not valid YAML: a key or a value is missing here"]),
    "list as key": ("? [a, {b: c}]\n: 1", ["1:3: an alias, a list or a mapping cannot be a key; write text"]),
    "alias as key": ("a: &x k\n*x : 1", ["2:1: an alias, a list or a mapping cannot be a key; write text"]),
    "key twice": ("a: 1\nb: 2\na: [3]", ["3:1: a: the key stands twice, first on line 1"]),
    "unknown alias": ("a: *x", ["1:4: a: the alias *x has no anchor before it"]),
    "alias in itself": ("a: &x [*x]", ["1:8: a[0]: the alias *x stands inside its own anchor"]),
    "two documents": ("a: 1\n---\nb: 2", ["2:1: a second document begins; a file holds one agent"]),
    "huge integer": (f"a: {'9' * 5000}", ["1:4: a: the number 999999999999… has 5000 digits; quote it if it is text"]),
    "huge float": ("a: 1e999", ["1:4: a: 1e999 is not a finite number"]),
    "not a number": ("a: .nan", ["1:4: a: .nan is not a finite number"]),
    "surrogate": (r'a: "\ud800"', ["1:4: a: holds U+D800, which is no character; remove it"]),
    "null character": (r'a: "x\0"', ["1:4: a: holds U+0000, which is no character; remove it"]),
    "surrogate in a key": (r'"\udfff": 1', ["1:1: the key holds U+DFFF, which is no character; remove it"]),
    "beyond unicode": (r'a: "\UFFFFFFFF"', ["1:7: is not valid YAML: no such character"]),
    "raw control character": ("a: 1\nb: \x1b[31m", ["2:4: holds the control character U+001B; remove it"]),
    "raw null": ("a\0", ["1:2: holds the control character U+0000; remove it"]),
    "tab": ("a:\n\tb: 1", ["2:1: is not valid YAML: a tab cannot indent; use spaces"]),
    "no-break space": (
        "a:\n - b: 1\n \xa0 c: 2",
        ["3:2: is not valid YAML: U+00A0 looks like a space and cannot indent; use spaces"],
    ),
    "question mark": (
        "a: {b: What is it?}",
        ["1:18: is not valid YAML: text in braces or brackets that holds a '?' has to be quoted"],
    ),
    "colon": ("a: b: c", ["1:5: is not valid YAML: a ':' is not allowed here; quote text that holds ': '"]),
    "open list": ("a: [1, 2\nb: 3", ["2:2: is not valid YAML: a ',' or ']' is missing"]),
    "open quote": ('a: "x\nb: 1', ["2:5: is not valid YAML: quoted text is not closed"]),
    "indentation": ("a:\n    b: 1\n  c: 2", ["3:3: is not valid YAML: the indentation does not fit the lines above"]),
    "no colon": ("a: 1\nb\n", ["3:1: is not valid YAML: the ':' after a key is missing"]),
    "wrong sign": ("a: @b", ["1:4: is not valid YAML: text cannot begin with '@'; quote it"]),
}


@pytest.mark.promise("yaml-safe")
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_yaml_is_refused_with_its_place(case):
    text, expected = HOSTILE[case]
    assert lines_of(text) == [f"f.yaml:{line}" for line in expected]


@pytest.mark.promise("yaml-safe")
def test_a_bomb_of_aliases_is_seen_before_it_is_unfolded():
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for name, before in zip("bcdefghi", "abcdefgh", strict=True):
        bomb += f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    assert lines_of(bomb) == [f"f.yaml:5:12: holds more than {MAX_NODES:,} values, unfolded aliases included"]


@pytest.mark.parametrize("text", ["[" * 100_000, "k: " + "{a: " * 1000, "? " + "[" * 5000, "a: 1\na: " + "[" * 5000])
def test_deep_nesting_is_refused_before_it_is_read(text):
    (line,) = lines_of(text)
    assert line.endswith(f"is nested deeper than {MAX_DEPTH} levels")


def test_aliases_cannot_nest_deeper_than_text():
    text = "a0: &a0 [x]\n" + "".join(f"a{index}: &a{index} [*a{index - 1}]\n" for index in range(1, 100))
    (line,) = lines_of(text)
    assert line.endswith(f"is nested deeper than {MAX_DEPTH} levels")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"a: 1\nb: \xff\n", "f.yaml:2:4: is not UTF-8; save the file as UTF-8"),
        ("é: \ud800".encode("utf-8", "surrogatepass"), "f.yaml:1:4: is not UTF-8; save the file as UTF-8"),
        ("a: 1".encode("utf-16"), "f.yaml:1:1: is not UTF-8; save the file as UTF-8"),
        (b"#" * (MAX_BYTES + 1), "f.yaml: is larger than 1 MiB, which no definition needs"),
    ],
)
def test_a_file_is_utf8_of_at_most_a_mebibyte(content, line, write):
    with pytest.raises(ConfigError) as caught:
        read_source(write(content, "f.yaml"))
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (os.mkfifo, "cannot be read: it is a pipe, which can be read but once; save it as a file"),
        (lambda path: path.symlink_to("gone.yaml"), "is a link to gone.yaml, which is not there"),
    ],
)
def test_a_pipe_and_a_link_to_nothing_are_told_as_what_they_are(make, told, tmp_path):
    """A pipe that nobody writes held the command for ever, and `<(…)` was read twice and empty the second time."""
    make(path := tmp_path / "f.yaml")
    with pytest.raises(ConfigError) as caught:
        read_source(path)
    assert str(caught.value) == f"{path}: {told}"


def test_a_byte_order_mark_is_no_content(write):
    assert read_source(write(b"\xef\xbb\xbfa: 1\n"))[0] == {"a": 1}


def test_python_data_is_copied_and_must_be_plain():
    given = {"a": (1, 2.5, None), "b": {"c": "x"}}
    data, problems = read_data(given)
    assert data == {"a": [1, 2.5, None], "b": {"c": "x"}}
    assert data["b"] is not given["b"]
    assert not problems
    loop = []
    loop.append(loop)
    _, problems = read_data({"a": object(), "b": {1: 2}, "c": float("nan"), "d": "\ud800", "e": loop})
    assert problems.lines() == [
        "a: holds a Python object; only plain data is allowed",
        "b: the key 1 is not text",
        "c: nan is not a finite number",
        "d: holds U+D800, which is no character; remove it",
        "e[0][0][0][0][0][0][0]: is nested deeper than 64 levels",
    ]

import re

import pytest

from shared_libs.atomic.names import is_name, name_schema

NAMES = [
    ("a", True),
    ("会议　一", True),  # with the blank of its script
    ("a\N{NO-BREAK SPACE}b", True),
    ("\U0001fae8", True),  # of Unicode 15, which the tables of Python 3.11 do not have
    ("", False),
    ("a" * 201, False),
    ("a\n", False),
    ("a\x00b", False),
    ("a\x85b", False),
    ("pay\u202e01", False),
    ("ad\u200bmin", False),
    ("\ufeffa", False),
    ("\ud800", False),
]


@pytest.mark.promise("serve-refuses")
def test_what_names_something_is_told_as_it_is_held():
    pattern = re.compile(name_schema(200)["pattern"])
    assert [is_name(name, 200) for name, _ in NAMES] == [held for _, held in NAMES]
    for sign in map(chr, (*range(0xD800), *range(0xE000, 0x10000, 7))):
        assert is_name(sign, 1) == (pattern.search(sign) is not None and sign != "\n"), ascii(sign)

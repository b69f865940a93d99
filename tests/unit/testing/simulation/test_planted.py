"""The bugs that `bench.planted` plants still fit the code."""

from __future__ import annotations

import ast

import pytest

from bench.planted import ROOT, bugs


@pytest.mark.parametrize("bug", bugs(), ids=lambda bug: bug.name)
def test_a_bug_can_be_planted(bug, tmp_path):
    copy = tmp_path / bug.file
    copy.parent.mkdir(parents=True)
    copy.write_text((ROOT / "shared_libs" / bug.file).read_text())

    bug.plant(tmp_path)

    assert ast.dump(ast.parse(copy.read_text())) != ast.dump(ast.parse((ROOT / "shared_libs" / bug.file).read_text()))

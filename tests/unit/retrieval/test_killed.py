"""An indexing killed at moments spread over all it writes, by the same program that does it a hundred times."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.test_house import ROOT
from tests.unit.retrieval.conftest import ON_POSTGRES


@pytest.mark.promise("index-killed")
@pytest.mark.parametrize("where", ["sqlite", ON_POSTGRES])
def test_a_killed_indexing_is_finished_by_the_next_one(request, where):
    command = [sys.executable, "-m", "bench.kill_index", "--moments", "3", "--documents", "6"]
    if where != "sqlite":
        command += ["--postgres", request.getfixturevalue("postgres_url")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "nothing lost" in done.stdout

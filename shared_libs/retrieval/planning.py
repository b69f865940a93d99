"""
What a retrieval does with the time it has: pure.

As time shrinks, steps are left out in this order: reranking, the graph, the search by meaning where its embedder is
slow; the search by words never is. What is begun has its share: branches 70 % of the time, reranking 25 %, the rest is
for putting things together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

BRANCHES_SHARE = 0.70
RERANK_SHARE = 0.25

FIRST_GUESS: Mapping[str, float] = {"rerank": 0.1, "graph": 0.05, "dense": 0.1}
"""Seconds a step is taken to need before it was seen."""

_LEARN = 0.2


class Plan(NamedTuple):
    """How long the branches and the reranking may take, in seconds, and why which step is left out."""

    branches_s: float
    rerank_s: float
    skipped: Mapping[str, str]


def plan(left_s: float, usual_s: Mapping[str, float], wanted: frozenset[str]) -> Plan:
    """
    Divide the time.

    Args:
        left_s: seconds until the answer has to be there; infinite for no deadline.
        usual_s: what steps have taken lately, in seconds.
        wanted: of "rerank", "graph" and "dense" those that there are.

    """
    skipped: dict[str, str] = {}

    def needs(step: str) -> float:
        return usual_s.get(step, FIRST_GUESS[step])

    rerank = "rerank" in wanted and needs("rerank") <= RERANK_SHARE * left_s
    if "rerank" in wanted and not rerank:
        skipped["rerank"] = _reason(needs("rerank"), RERANK_SHARE * left_s)
    branches_s = (BRANCHES_SHARE if rerank else BRANCHES_SHARE + RERANK_SHARE) * left_s
    for step in ("graph", "dense"):
        if step in wanted and needs(step) > branches_s:
            skipped[step] = _reason(needs(step), branches_s)
    return Plan(branches_s, RERANK_SHARE * left_s if rerank else 0.0, skipped)


class Usual:
    """What steps take, as a running mean of late; one that was late counts as what it had taken by then."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def saw(self, step: str, elapsed_s: float) -> None:
        """Learn from one time."""
        known = self.seconds.get(step)
        self.seconds[step] = elapsed_s if known is None else known + _LEARN * (elapsed_s - known)

    def left_out(self, step: str) -> None:
        """Forget a little each time it is left out, so that it is tried again some time."""
        if step in self.seconds:
            self.seconds[step] *= 1 - _LEARN


def _reason(needed_s: float, left_s: float) -> str:
    return f"it takes about {needed_s:.3g} s, and {left_s:.3g} s are left for it"

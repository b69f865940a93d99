"""
Making one order of several: pure, and the same every time.

Scores of different branches do not compare, so each branch is stretched to 0..1 and weighed: 0.65 by meaning, 0.35 by
words. Words and graphs count from nothing: who shares no word has none of their score, so the last of fifty hits still
tells something, and the second of two tells nearly what the first does. By meaning everything is a little like
everything, so there the last hit found is nothing. Chosen on one half of the questions of five sets, and as good on the
other half (bench/retrieval_quality.py); merging by rank alone loses eight points wherever the words are the weak
branch. A graph is a third voice of 0.3, behind the best five.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shared_libs.retrieval.english import is_english
from shared_libs.retrieval.types import Found
from shared_libs.retrieval.words import latin, latin_words

WEIGHTS: dict[str, float] = {"dense": 0.65, "lexical": 0.35, "graph": 0.3}
FOREIGN: dict[str, float] = WEIGHTS | {"dense": 0.15, "lexical": 0.85}
"""
Where a model that knows English first is asked in another language: what it finds is mostly chance.

Chosen on fifty Vietnamese questions, which words alone answer better than both at the usual weights.
"""

FROM_NOTHING = ("lexical", "graph")
"""Branches whose scores begin at 0, for what has nothing of what is looked for."""

HEAD = 5
"""The best so many are nobody's to displace: what a graph adds comes behind them."""


def stretched(
    branches: Mapping[str, Sequence[Found]], weights: Mapping[str, float] = WEIGHTS, upon: Sequence[Found] = ()
) -> list[Found]:
    """
    Merge branches by their scores, each stretched to its highest from nothing or its lowest; best first, equals by id.

    `upon` is an order of other branches, made before, that these are added to.

    A branch with one score counts in full: it has nothing to tell apart. One whose best has nothing of what is looked
    for, or its opposite, does not count.
    """
    total = {row.id: row.score for row in upon}
    for name, found in branches.items():
        if not found:
            continue
        low, high = min(row.score for row in found), max(row.score for row in found)
        if high <= 0.0:
            continue
        if name in FROM_NOTHING:
            low = min(low, 0.0)
        for row in found:
            share = (row.score - low) / (high - low) if high > low else 1.0
            total[row.id] = total.get(row.id, 0.0) + weights.get(name, 1.0) * share
    return _ordered(total)


def weights_for(question: str, *, english_first: bool) -> Mapping[str, float]:
    """Return what each branch weighs: another language is told by its small words, or by letters that are not Latin."""
    if not english_first:
        return WEIGHTS
    letters = [sign for sign in question if sign.isalpha()]
    strange = sum(not latin(sign) for sign in letters)
    words = latin_words(question)
    foreign = 20 * strange > len(letters) or is_english(words) is False
    return FOREIGN if foreign else WEIGHTS


def behind_the_head(order: Sequence[Found], anew: Sequence[Found], head: int = HEAD) -> list[Found]:
    """Keep the best `head` of an order, and let the rest follow as another order has it; scores go on falling."""
    kept = list(order[:head])
    seen = {row.id for row in kept}
    rest = [row for row in anew if row.id not in seen]
    if not kept or not rest:
        return kept + rest
    share = min(1.0, kept[-1].score / rest[0].score) if rest[0].score > 0 else 0.0
    return kept + [Found(row.id, row.score * share) for row in rest]


def _ordered(total: Mapping[str, float]) -> list[Found]:
    return [Found(id_, score) for id_, score in sorted(total.items(), key=lambda row: (-row[1], row[0]))]

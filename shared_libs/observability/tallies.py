"""
Figures that cost about a microsecond to count, and become those of prometheus-client when somebody asks for them.

The package's own counters check names, labels and exemplars whenever something is counted, which was a tenth of what a
whole request cost. Here a label's values are a key, and all that is checked and written is so at the scrape.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from shared_libs.atomic.whole import whole_text

if TYPE_CHECKING:
    from prometheus_client import Metric

Key = tuple[str, ...]
"""A value for each label, in their order."""

LONGEST_ID = 64
"""How many characters of a run's id an exemplar has: of all that it says OpenMetrics allows 128."""


class _Example(NamedTuple):
    """The run that last led to a figure, by how much and when; no run, no exemplar."""

    run_id: str
    amount: float
    at: float

    def told(self) -> Any:
        from prometheus_client.samples import Exemplar

        return Exemplar({"run_id": whole_text(self.run_id[:LONGEST_ID])}, self.amount, self.at)


class _Row:
    """What is counted for one key: an amount, or one for each bucket, with the sum of what was observed."""

    __slots__ = ("amounts", "created", "examples", "sum")

    def __init__(self, buckets: int) -> None:
        self.amounts = [0.0] * buckets
        self.examples: list[_Example | None] = [None] * buckets
        self.sum = 0.0
        self.created = time.time()


class Tally:
    """
    A figure, for each key that it was counted for; any thread may count.

    Args:
        kind: what Prometheus is told that it is.
        name: of the figure.
        text: what it is.
        labels: names of its labels; without any it is there from the beginning.
        bounds: of the buckets of a histogram.

    """

    def __init__(
        self,
        kind: Literal["counter", "gauge", "histogram"],
        name: str,
        text: str,
        labels: Sequence[str],
        bounds: Sequence[float] = (),
    ) -> None:
        self._kind, self._name, self._text, self._labels = kind, name, text, labels
        self._bounds = bounds
        self._rows: dict[Key, _Row] = {} if labels else {(): _Row(len(bounds) + 1)}
        self._lock = Lock()

    def add(self, key: Key = (), amount: float = 1.0, run_id: str = "") -> None:
        """Count more; `run_id` is the run that led to it."""
        with self._lock:
            row = self._rows.get(key) or self._new(key)
            row.amounts[0] += amount
            if run_id:
                row.examples[0] = _Example(run_id, amount, time.time())

    def set(self, key: Key, amount: float) -> None:
        """Say how much it is now."""
        with self._lock:
            (self._rows.get(key) or self._new(key)).amounts[0] = amount

    def observe(self, key: Key, amount: float, run_id: str = "") -> None:
        """Count one of so much in its bucket."""
        with self._lock:
            row, bucket = self._rows.get(key) or self._new(key), bisect_left(self._bounds, amount)
            row.amounts[bucket] += 1
            row.sum += amount
            if run_id:
                row.examples[bucket] = _Example(run_id, amount, time.time())

    def family(self) -> Metric:
        """All of it, as the package has it."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
        family: Metric = kinds[self._kind](self._name, self._text, labels=self._labels)
        with self._lock:
            for key, row in self._rows.items():
                self._tell(family, key, row)
        return family

    def _new(self, key: Key) -> _Row:
        row = self._rows[key] = _Row(len(self._bounds) + 1)
        return row

    def _tell(self, family: Any, key: Key, row: _Row) -> None:
        from prometheus_client.utils import floatToGoString

        examples = [example and example.told() for example in row.examples]
        if self._kind == "gauge":
            family.add_metric(key, row.amounts[0])
        elif self._kind == "counter":
            family.add_metric(key, row.amounts[0], created=row.created, exemplar=examples[0])
        else:
            bounds = [*map(floatToGoString, self._bounds), "+Inf"]
            family.add_metric(key, list(zip(bounds, accumulate(row.amounts), examples, strict=True)), row.sum)
            named = dict(zip(self._labels, key, strict=True))
            family.add_sample(f"{self._name}_created", named, row.created)


class Tallies:
    """The figures of one observer; what a registry of the package collects."""

    def __init__(self) -> None:
        self._made: list[Tally] = []

    def make(self, *about: Any) -> Tally:
        """Make one; takes the arguments of `Tally`."""
        tally = Tally(*about)
        self._made.append(tally)
        return tally

    def collect(self) -> Iterator[Metric]:
        """Give the figures as they are now."""
        return (tally.family() for tally in self._made)

    describe = collect  # a registry looks whether the names are taken

"""
The figures of the service itself for Prometheus: slots, queues, what is refused, limits of teams, the loop.

They are read when somebody asks for them; a request costs nothing for them. Labels are what definitions and settings
name: agents, chains, our own routes, teams, and the codes of `KINDS`. A key is no label: there is no end of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from shared_libs.service.admission import Admission
from shared_libs.service.lag import LoopLag
from shared_libs.service.limits import CallerLimits

if TYPE_CHECKING:
    from prometheus_client import Metric

MOST_TARGETS = 200
"""Agents and chains with figures of their own."""


class ServiceFigures:
    """
    What Prometheus collects of a service.

    Args:
        admission: slots, queues and refusals.
        limits: what teams may use.
        lag: how late the loop is.

    """

    def __init__(self, admission: Admission, limits: CallerLimits, lag: LoopLag) -> None:
        self._admission = admission
        self._limits = limits
        self._lag = lag

    def collect(self) -> Iterator[Metric]:
        """Give the figures as they are now."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        def gauge(name: str, text: str, *labels: str) -> Any:
            return GaugeMetricFamily(f"factory_{name}", text, labels=labels)

        slots, taken = gauge("slots", "Slots of an agent or a chain", "target"), gauge("slots_taken", "Taken", "target")
        waiting = gauge("requests_waiting", "Requests that wait for a slot", "target")
        predicted = gauge("predicted_wait_seconds", "How long one would wait that came now", "target")
        waited = HistogramMetricFamily("factory_queue_wait_seconds", "Waits for a slot", labels=["target"])
        refused = CounterMetricFamily("factory_requests_refused", "Not admitted, by code", labels=["target", "code"])
        for target, told in list(self._admission.told().items())[:MOST_TARGETS]:
            slots.add_metric([target], told["slots"])
            taken.add_metric([target], told["taken"])
            waiting.add_metric([target], told["waiting"])
            predicted.add_metric([target], told["predicted_wait_s"])
            for code, count in told["refused"].items():
                refused.add_metric([target, code], count)
        for target, waits in list(self._admission.waits().items())[:MOST_TARGETS]:
            waited.add_metric([target], waits.buckets(), waits.sum_s)
        yield from (slots, taken, waiting, predicted, waited, refused)
        yield from self._of_limits()
        late = gauge("loop_late_seconds", "How late the loop was when it was last looked at")
        late.add_metric([], self._lag.late_s)
        shedding = gauge("load_shedding", "0 takes all, 1 refuses what is sheddable, 2 all but what is critical")
        shedding.add_metric([], (None, "sheddable", "default").index(self._lag.refuses))
        yield from (late, shedding)

    def _of_limits(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        labels = ["team", "unit", "window"]
        most = GaugeMetricFamily("factory_team_limit", "What a team may use", labels=labels)
        left = GaugeMetricFamily("factory_team_limit_left", "What was left of it when last looked at", labels=labels)
        for team, account, known in self._limits.of_teams():
            named = [team, account.unit, account.window]
            most.add_metric(named, account.shown(account.limit))
            if known is not None:
                left.add_metric(named, account.shown(known))
        away = GaugeMetricFamily("factory_limits_away", "1 while the database of limits does not answer")
        away.add_metric([], float(self._limits.away))
        yield from (most, left, away)

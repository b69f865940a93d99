"""What listens to a run: logs, the run record, the store of runs, and the timelines drawn from them."""

from typing import TYPE_CHECKING

from shared_libs.lazy import lazy

if TYPE_CHECKING:
    from shared_libs.observability.attribution import Attribution, Part, attribute
    from shared_libs.observability.calls import observed
    from shared_libs.observability.html import timeline_page
    from shared_libs.observability.log import configure_logging, log_events
    from shared_libs.observability.otel import OpenTelemetry
    from shared_libs.observability.otel_context import continued_from
    from shared_libs.observability.otel_export import telemetry_from_environment
    from shared_libs.observability.printable import presentable
    from shared_libs.observability.prometheus import PrometheusMetrics
    from shared_libs.observability.record import RunRecorder, read_record
    from shared_libs.observability.redact import redact_data, redact_text
    from shared_libs.observability.run_file import run_page
    from shared_libs.observability.run_store import RunStore
    from shared_libs.observability.runs.rows import RunPage, RunRow
    from shared_libs.observability.terminal import draw_timeline
    from shared_libs.observability.timeline import Timeline, timelines

_HOMES = {
    "Attribution": "attribution",
    "Part": "attribution",
    "OpenTelemetry": "otel",
    "PrometheusMetrics": "prometheus",
    "RunPage": "runs.rows",
    "RunRecorder": "record",
    "RunRow": "runs.rows",
    "RunStore": "run_store",
    "Timeline": "timeline",
    "attribute": "attribution",
    "configure_logging": "log",
    "continued_from": "otel_context",
    "draw_timeline": "terminal",
    "log_events": "log",
    "observed": "calls",
    "presentable": "printable",
    "read_record": "record",
    "redact_data": "redact",
    "redact_text": "redact",
    "run_page": "run_file",
    "telemetry_from_environment": "otel_export",
    "timeline_page": "html",
    "timelines": "timeline",
}

__all__ = [
    "Attribution",
    "OpenTelemetry",
    "Part",
    "PrometheusMetrics",
    "RunPage",
    "RunRecorder",
    "RunRow",
    "RunStore",
    "Timeline",
    "attribute",
    "configure_logging",
    "continued_from",
    "draw_timeline",
    "log_events",
    "observed",
    "presentable",
    "read_record",
    "redact_data",
    "redact_text",
    "run_page",
    "telemetry_from_environment",
    "timeline_page",
    "timelines",
]

__getattr__ = lazy(__name__, _HOMES)

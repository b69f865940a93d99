"""
Runs as one HTML file that needs nothing else, drawn by the console's own module.

`page/` is built of the console's source (docs/console.md); the events stand in the file, for what the service would
have told. Where scripts do not run, it is drawn without one.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from shared_libs.atomic.events import AgentEvent, ModelAsked, TextDelta, ThinkingDelta
from shared_libs.observability.encoding import json_bytes
from shared_libs.observability.html import POLICY, static_body, static_style, whole_page
from shared_libs.observability.redact import redact_data, redact_text
from shared_libs.observability.runs.contents import kept_request
from shared_libs.observability.timeline import Timeline, timelines

BLOCK = 1_000
"""Events that the page takes at once, and lets itself be moved before the next."""

MOST_STATIC = 5_000
"""Events up to which the runs are drawn without a script, too."""

SCRIPTS = ("trace.js", "trace.css")
"""The files that draw."""


def run_page(events: Sequence[AgentEvent]) -> str:
    """
    Return the page of one or more runs, and of what their models were asked; secrets are masked.

    Its policy lets its own script run, and nothing else, and nobody be asked: what a tool brought in is text.
    """
    runs = timelines(events)
    script = page_file("trace.js")
    if len(events) > MOST_STATIC:
        static = "<main><p>A run of this length is drawn by a script, and scripts do not run here.</p></main>"
    else:
        static = static_body(runs)
    body = [
        '<div id="trace"></div>',
        f"<noscript>{static}</noscript>",
        *(f'<script type="application/json">{block}</script>' for block in _blocks(events, runs)),
        f"<script>{script}</script>",
    ]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # the script makes its own look hold, so that both do not where there is none
    style = f'<noscript>{static_style()}</noscript><style media="not all">{page_file("trace.css")}</style>'
    return whole_page(runs, policy=f"{POLICY}; script-src 'sha256-{digest}'", style=style, body="\n".join(body))


@cache
def page_file(name: str) -> str:
    """Return a file that draws."""
    return files("shared_libs.observability").joinpath("page", name).read_text("utf-8")


def _blocks(events: Sequence[AgentEvent], runs: Sequence[Timeline]) -> Iterator[str]:
    """The data of the page, as JSON that stands in a document: no mark of it can end the block."""
    told = [event for event in events if not isinstance(event, TextDelta | ThinkingDelta)]
    for start in range(0, len(told), BLOCK):
        some = told[start : start + BLOCK]
        requests = [kept_request(event) for event in some if isinstance(event, ModelAsked)]
        rest = [redact_data(msgspec.to_builtins(event)) for event in some if not isinstance(event, ModelAsked)]
        yield _json({"events": rest, "requests": requests, "spent": {}})
    spent = {run.run_id: {"parts": run.spent.parts, "why": redact_text(run.spent.why)} for run in runs}
    yield _json({"events": [], "requests": [], "spent": msgspec.to_builtins(spent)})


def _json(data: Any) -> str:
    return json_bytes(data).decode().replace("<", "\\u003c")

"""`factory schema` and `trace`: commands that look and run nothing."""

from __future__ import annotations

import argparse
import json
import sys

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.secrets import private
from shared_libs.cli.exits import ExitCode


def schema(arguments: argparse.Namespace) -> int:
    """Print the JSON Schema of a definition, or of a scenario."""
    if arguments.scenario:
        from shared_libs.testing import scenario_schema

        found = scenario_schema()
    else:
        from shared_libs.factory import agent_schema

        found = agent_schema()
    print(json.dumps(found, indent=2, ensure_ascii=False))
    return ExitCode.ANSWERED


def trace(arguments: argparse.Namespace) -> int:
    """Draw a recorded run: on the terminal, or as one HTML file."""
    from shared_libs.observability import draw_timeline, read_record, timeline_page, timelines

    events = read_record(arguments.file, on_note=lambda text: print(f"note: {text}", file=sys.stderr))
    runs = timelines(events)
    if arguments.html is None:
        from rich.console import Console

        console = Console()
        for run in runs:
            draw_timeline(run, console)
        return ExitCode.ANSWERED
    if arguments.html.exists() and arguments.html.samefile(arguments.file):
        raise MisuseError(f"{arguments.html} is the run record itself; name another file for the page")
    try:
        with open(arguments.html, "w", encoding="utf-8", opener=private) as page:
            page.write(timeline_page(runs))
    except OSError as error:
        raise MisuseError(f"{arguments.html} cannot be written: {error.strerror or error}") from error
    print(arguments.html)
    return ExitCode.ANSWERED

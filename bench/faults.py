"""
What becomes of every fault: `python -m bench.faults` runs the fault matrix over real sockets and prints it.

1. each fault: what came back, how often primary and fallback were asked, the rule that decided; and the same alone;
2. a primary that flaps for a minute;
3. an answer of text and parallel tool calls, cut at every byte of its body.

`--all` prints one line per fault, format and mode. `--markdown` prints the table of `docs/faults.md` without running
anything: it is what the tests hold every row to.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterable

from bench.fault_matrix import CASES, FORMATS, Case, Row, Want, all_rows, run_cuts, run_flapping, run_row
from shared_libs.testing.clock import VirtualLoop

Cell = tuple[str, bool]
"""A format, and whether it is streamed."""


def run(main, *, virtual=True):
    factory = VirtualLoop if virtual else None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def wanted(case: Case, cell: Cell) -> tuple[Want, Want]:
    name, stream = cell
    return case.want(name, stream=stream, alone=False), case.want(name, stream=stream, alone=True)


def markdown() -> str:
    """The table, with one line for all formats and modes that end alike."""
    lines = [
        "| fault | where | result | attempts | the rule that decided | without a fallback |",
        "|---|---|---|---|---|---|",
    ]
    for case in CASES:
        cells: dict[tuple[Want, Want], list[Cell]] = {}
        for name in FORMATS:
            for stream in (True, False):
                cells.setdefault(wanted(case, (name, stream)), []).append((name, stream))
        for (want, alone), where in cells.items():
            ending = f"{alone.result}, {alone.primary}"
            asked = f"{want.primary} + {want.fallback}"
            lines.append(f"| {case.name} | {_where(where)} | {want.result} | {asked} | {want.rule} | {ending} |")
    return "\n".join(lines) + "\n"


def _where(cells: Iterable[Cell]) -> str:
    modes = {stream: [name for name, mode in cells if mode is stream] for stream in (True, False)}
    told = []
    for stream, names in modes.items():
        mode = "streamed" if stream else "whole"
        if len(names) == len(FORMATS):
            told.append(mode)
        elif names:
            told.append(f"{mode}: {', '.join(names)}")
    return "everywhere" if told == ["streamed", "whole"] else "; ".join(told)


def problems(row: Row) -> list[str]:
    """What a row does not keep."""
    want = row.want
    found = []
    if (row.result, row.asked, row.rule) != (want.result, (want.primary, want.fallback), want.rule):
        found.append(f"wanted {want}")
    if row.wire != row.asked:
        found.append(f"the servers saw {row.wire}")
    if row.result == "answer" and (row.outcome.text != row.case.text or (row.stream and row.heard != row.case.text)):
        found.append("the text is not all of it")
    return found


def matrix(*, every: bool) -> int:
    bad = rows = 0
    began = time.perf_counter()
    for case, name, stream, alone in all_rows():
        row = run(run_row(case, name, stream=stream, alone=alone), virtual=not case.real_clock)
        found = problems(row)
        rows, bad = rows + 1, bad + bool(found)
        if every or found:
            mode = f"{name:18}{'streamed' if stream else 'whole':9}{'alone' if alone else ''}"
            asked = f"{row.asked[0]} + {row.asked[1]}"
            print(f"{case.name:38}{mode:25}{row.result:21}{asked:7}{row.rule}{' !! ' + str(found) if found else ''}")
    if not every:
        print(markdown())
    seconds = time.perf_counter() - began
    print(f"{rows} rows of {len(CASES)} faults in {seconds:.1f} s; {bad} not as the table says")
    return bad


def series() -> None:
    print("\na primary that flaps for a minute, three calls every second for 100 s\n")
    for name in FORMATS:
        for stream in (True, False):
            print(f"{name:18}{'streamed' if stream else 'whole':9}{run(run_flapping(name, stream=stream)).told}")


def cuts() -> int:
    print("\nan answer of text and two tool calls, cut at every byte of its body\n")
    truncated = 0
    for name in FORMATS:
        for stream in (True, False):
            found = run(run_cuts(name, stream=stream))
            truncated += found.truncated
            print(f"{name:18}{'streamed' if stream else 'whole':9}{found}")
    return truncated


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="one line per fault, format and mode")
    parser.add_argument("--markdown", action="store_true", help="only the table of docs/faults.md")
    arguments = parser.parse_args()
    if arguments.markdown:
        print(markdown(), end="")
        return
    bad = matrix(every=arguments.all)
    series()
    sys.exit(1 if bad + cuts() else 0)


if __name__ == "__main__":
    main()

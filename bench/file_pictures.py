"""
Pictures of what the command line draws: on terminals of 80 and 120 columns, dark and light, and as files of HTML.

`python -m bench.file_pictures DIR` runs the commands in terminals of their own, and takes the pictures into the folder,
beside the text as it came. Exit code 1 where a line is wider than its terminal, a page than its screen, or axe finds
something.
"""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, MONOKAI
from rich.text import Text

from shared_libs.observability import RunStore
from tests.browser import DESKTOP, PHONE, looking, violations
from tests.console_states import STATES

FACTORY = [sys.executable, "-m", "shared_libs.cli"]
COMMANDS = {
    "help": ["--help"],
    "runs": ["runs"],
    "run": ["runs", "everything"],
    "trace": ["trace", "everything", "--sent"],
    "failed": ["trace", "failed"],
    "no such run": ["runs", "nobody"],
    "doctor": ["doctor"],
}
THEMES = {"light": DEFAULT_TERMINAL_THEME, "dark": MONOKAI}
ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
PAGES = {"file": ["everything"], "failed file": ["failed"]}


def in_terminal(command: list[str], columns: int, environment: dict[str, str]) -> tuple[str, int]:
    """Run a command in a terminal so wide; return what it wrote, and its exit code."""
    mine, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    given = os.environ | environment | {"TERM": "xterm-256color", "COLUMNS": str(columns)}
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=given, close_fds=True)
    os.close(its)
    wrote = b""
    try:
        while some := os.read(mine, 1 << 16):
            wrote += some
    except OSError:  # the end, as Linux tells it of a terminal
        pass
    os.close(mine)
    process.wait()
    return wrote.decode().replace("\r\n", "\n"), process.returncode


async def terminals(folder: Path, environment: dict[str, str]) -> int:
    """Take the pictures of every command; return how many lines are too wide."""
    wrong = 0
    async with looking("about:blank") as page:
        for name, command in COMMANDS.items():
            for columns in (80, 120):
                wrote, code = await asyncio.to_thread(in_terminal, [*FACTORY, *command], columns, environment)
                lines = ESCAPES.sub("", wrote).splitlines() if code == 0 else []  # a refusal is prose
                wide = [line for line in lines if cell_len(line) > columns]
                print(f"{name:14}{columns} columns", *wide, sep="\n    wider: ")
                wrong += len(wide)
                file = folder / f"terminal-{name.replace(' ', '-')}-{columns}"
                await asyncio.to_thread(file.with_suffix(".txt").write_text, wrote)
                for scheme, theme in THEMES.items():
                    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True)
                    console.print(Text.from_ansi(wrote))
                    await page.set_content(console.export_svg(title=f"factory {' '.join(command)}", theme=theme))
                    await page.locator("svg").screenshot(path=f"{file}-{scheme}.png")
    return wrong


async def files(folder: Path, environment: dict[str, str]) -> int:
    """Take the pictures of runs as files; return how much is wrong with them."""
    wrong = 0
    for name, (run_id,) in PAGES.items():
        file = folder / f"{name.replace(' ', '-')}.html"
        command = [*FACTORY, "trace", run_id, "--html", str(file)]
        await asyncio.to_thread(subprocess.run, command, env=os.environ | environment, check=True, capture_output=True)
        for screen, size in (("desktop", DESKTOP), ("phone", PHONE)):
            for scheme in ("light", "dark"):
                async with looking("file://", viewport=size, color_scheme=scheme) as page:
                    await page.goto(file.as_uri())
                    await page.locator(".row.model").last.click()
                    found = [*page.told, *await violations(page)]
                    if await page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                        found.append("wider than the screen")
                    await page.screenshot(path=f"{file.with_suffix('')}-{screen}-{scheme}.png", full_page=True)
                    print(f"{name:14}{screen} {scheme}", *found, sep="\n    ")
                    wrong += len(found)
    return wrong


async def main(folder: Path) -> int:
    """Take them."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        store = RunStore(f"sqlite:///{place}/runs.db")
        for state in STATES:
            for event in state():
                store.record(event, source="service")
        await asyncio.to_thread(store.close)
        environment = {"FACTORY_RUNS": f"sqlite:///{place}/runs.db"}
        wrong = await terminals(folder, environment) + await files(folder, environment)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]))))

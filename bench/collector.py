"""
A run as a collector that others wrote keeps it: Phoenix (`pip install arize-phoenix`, in an environment of its own).

`python -m bench.collector --phoenix COMMAND` starts it, does a run with a fallback, a hedge, tools side by side, a
sub-agent and a call that ignores its cancellation, exports it as the variables of OpenTelemetry say, and asks the
collector for what it has: every span below its parent, with kind, status and attributes. Exit code 1 where one is
missing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any
from urllib.request import urlopen

START_S = 180.0
SEEN_S = 30.0

WANTED = {
    ("", "invoke_agent outer"),
    ("invoke_agent outer", "step 1"),
    ("step 1", "chat first"),
    ("step 1", "chat second"),
    ("step 1", "execute_tool look"),
    ("step 1", "execute_tool hang"),
    ("step 1", "execute_tool inner"),
    ("execute_tool inner", "invoke_agent inner"),
    ("invoke_agent inner", "step 1"),
    ("step 1", "chat slow"),
    ("step 1", "chat quick"),
    ("invoke_agent outer", "step 2"),
    ("step 2", "chat second"),
}
"""What stands below what."""


KINDS = {"invoke_agent": "AGENT", "chat": "LLM", "execute_tool": "TOOL"}
"""What the collector takes spans for, by their conventions alone."""

SHOWN = ("gen_ai.request.model", "gen_ai.tool.name", "error.type", "factory.outcome", "factory.still_running")


async def live() -> None:
    """Do the run."""
    from shared_libs.agents import ReActAgent
    from shared_libs.atomic import Resilience, tool
    from shared_libs.atomic.errors import ProviderUnavailable
    from shared_libs.atomic.llms import ScriptedLLM
    from shared_libs.atomic.llms.scripted_llm import Turn
    from shared_libs.observability import telemetry_from_environment
    from shared_libs.tools.agent import AgentTool

    told = telemetry_from_environment()
    assert told is not None

    @tool
    async def look(place: str) -> str:
        """Look something up."""
        await asyncio.sleep(0.2)
        return f"seen at {place}"

    @tool(timeout_s=0.3)
    async def hang() -> str:
        """Ignore a cancellation for a while."""
        for _ in range(3):
            try:
                await asyncio.sleep(0.5)
            except asyncio.CancelledError:
                continue
        return "late"

    hedged = Resilience(strategy="hedged", hedge_after_s=0.1)
    slow = ScriptedLLM([Turn(text="Too late.", delay_s=5.0)], model="slow", resilience=hedged)
    slow.fallbacks = (ScriptedLLM(["61 of them."], model="quick"),)
    inner = ReActAgent(llm=slow, name="inner", observers=[told])
    overloaded = [ProviderUnavailable("overloaded", status_code=503)] * 9
    first = ScriptedLLM(overloaded, model="first", resilience={"retry": {"attempts": 1}})
    calls = [("look", {"place": "EWR"}), ("hang", {}), ("inner", {"question": "How many?"})]
    first.fallbacks = (ScriptedLLM([Turn(text="I look.", calls=calls), "61 delays."], model="second"),)
    tools = [look, hang, AgentTool(inner, description="Ask the inner one.")]
    outer = ReActAgent(llm=first, tools=tools, name="outer", observers=[told])
    result = await outer.async_run("Which delays?", timeout=20)
    assert result.status == "answered", result.error


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        port: int = own.getsockname()[1]
        return port


def asked(url: str) -> Any:
    """Ask the collector."""
    with urlopen(url, timeout=10) as answer:
        return json.load(answer)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the collector answers."""
    until = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until:
        try:
            urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise SystemExit("the collector did not start")


def spans_of(place: str, count: int) -> list[dict[str, Any]]:
    """Return what the collector has, once it has so many spans, or after a while."""
    until, found = time.monotonic() + SEEN_S, []
    while time.monotonic() < until and len(found) < count:
        time.sleep(0.5)
        found = asked(f"{place}/v1/projects/default/spans?limit=1000")["data"]
    return found


def report(spans: list[dict[str, Any]]) -> int:
    """Print the tree, and what is missing of it."""
    names = {span["context"]["span_id"]: span["name"] for span in spans}
    below: dict[str | None, list[dict[str, Any]]] = {}
    for span in sorted(spans, key=lambda span: span["start_time"]):
        parent = span.get("parent_id")
        below.setdefault(parent if parent in names else None, []).append(span)

    def draw(parent: str | None, depth: int) -> None:
        for span in below.get(parent, ()):
            told = {key: value for key, value in span["attributes"].items() if key in SHOWN}
            print(
                f"{'  ' * depth}{span['name']:<{30 - 2 * depth}} {span['span_kind']:6} {span['status_code']:6} {told}"
            )
            draw(span["context"]["span_id"], depth + 1)

    draw(None, 0)
    seen = {(names.get(span.get("parent_id"), ""), span["name"]) for span in spans}
    for parent, name in sorted(WANTED - seen):
        print(f"missing: {name} below {parent or 'nothing'}")
    kinds = {(span["name"].partition(" ")[0], span["span_kind"]) for span in spans}
    for name, kind in sorted(set(KINDS.items()) - kinds):
        print(f"the collector takes no {name} for {kind}")
    return len(WANTED - seen) + len(set(KINDS.items()) - kinds)


def main() -> int:
    """Start the collector, do the run, and look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phoenix", required=True, metavar="COMMAND", help="the collector's command")
    given = parser.parse_args()
    port = free_port()
    place = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "PHOENIX_WORKING_DIR": folder,
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": str(port),
            "PHOENIX_GRPC_PORT": str(free_port()),
            "PHOENIX_TELEMETRY_ENABLED": "false",
        }
        quiet = subprocess.DEVNULL
        phoenix = subprocess.Popen([given.phoenix, "serve"], env=environment, stdout=quiet, stderr=quiet)
        try:
            wait_for(f"{place}/healthz", phoenix)
            told = {"OTEL_EXPORTER_OTLP_ENDPOINT": place, "OTEL_METRICS_EXPORTER": "none", "OTEL_SERVICE_NAME": "bench"}
            program = "import asyncio; from bench.collector import live; asyncio.run(live())"
            subprocess.run([sys.executable, "-c", program], env=os.environ | told, check=True, timeout=120)
            return 1 if report(spans_of(place, len(WANTED))) else 0
        finally:
            phoenix.send_signal(signal.SIGINT)
            try:
                phoenix.wait(20)
            except subprocess.TimeoutExpired:
                phoenix.kill()
                phoenix.wait()


if __name__ == "__main__":
    sys.exit(main())

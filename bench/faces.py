"""
Clients that nobody here wrote, unmodified, against a service with scripted models: no key, loopback only.

    python -m bench.faces [--python PYTHON] [--openai DIR] [--anthropic DIR] [--codex FILE] [--conformance FILE]

`PYTHON` is an interpreter that has the clients (`llm`, `pydantic-ai-slim[openai]`, `langchain-openai`, `litellm`,
`mcp`, `openai-agents`, `instructor`, `autogen-ext[openai]`, `autogen-agentchat`; those it lacks are left out). `DIR` is
the unpacked source of a vendor's SDK, whose own tests are run with that
interpreter (they need pytest-asyncio, respx, dirty-equals, inline-snapshot, http-snapshot, time-machine). `FILE` is the
command of codex, or of the MCP conformance suite, as npm installs them.

The SDKs' tests were made for a mock that answers anything. What a real server cannot answer is told apart by its
reason: a call without a model or an input, an operation that the service does not offer, a field refused on purpose.
What their tests ask for by an id is put into the service's database first.
"""

from __future__ import annotations

import argparse
import base64
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

from bench.face_clients import CLIENTS
from shared_libs.atomic.types import ToolCall
from shared_libs.testing import BackgroundFaultServer, Healthy, SlowFirstToken
from shared_libs.testing.faults.catalogue import Fault

ASK = "What is 17 * 23?"
WANT = "391"
MODELS = ("gpt-6-astra", "model", "text-embedding-3-small", "claude-opus-5-5", "claude-1.3", "model_id")
HELLO = {"name": "hello", "tools": ["calculator"], "llm": {"provider": "rehearsal", "script": "hello"}}

TYPED = {
    "name": "typed",
    "output_schema": {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]},
}

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

SEEDED = """
import json, os, sqlite3, time, urllib.request
import pytest
URL, DATABASE = os.environ["SEED_URL"], os.environ["SEED_DATABASE"]
IDS = ("resp_677efb5139a88190b512bc3fef8e535d", "response_id", "resp_123", "previous_response_id")
def asked(method, path, body=None):
    sent = urllib.request.Request(URL + path, None if body is None else json.dumps(body).encode(), method=method)
    sent.add_header("content-type", "application/json")
    return json.load(urllib.request.urlopen(sent))
made = asked("POST", "/v1/responses", {"model": "hello", "input": "hi", "background": True})["id"]
while asked("GET", "/v1/responses/" + made)["status"] != "completed":
    time.sleep(0.1)
with sqlite3.connect(DATABASE) as database:
    row = "SELECT team, until, body FROM factory_responses WHERE id = ?"
    while not (found := database.execute(row, (made,)).fetchone()) or b'"completed"' not in found[2]:
        time.sleep(0.1)
team, until, body = found
@pytest.fixture(autouse=True)
def _seeded():
    with sqlite3.connect(DATABASE, timeout=30) as database:
        rows = [(team, id, until, body.replace(made.encode(), id.encode())) for id in IDS]
        into = "INSERT OR REPLACE INTO factory_responses (team, id, until, body) VALUES (?, ?, ?, ?)"
        database.executemany(into, rows)
"""
"""A pytest plugin for the SDKs' tests: the responses that they ask for are there, in the database of the service."""

REASONS = (
    ("stored completions, fine-tuned models, compaction: not offered", r"Error code: 40[45]"),
    ("no model or no input is sent, which a mock takes", r"input is a text|model is a text|type is a text"),
    (
        "functions, audio, prompt, conversation, limit=0: refused on purpose, with the field",
        r"is not supported|limit is",
    ),
    ("the SDK's strict mode refuses the base64 that the SDK asks for", r"CreateEmbeddingResponse"),
)


class World(Fault, frozen=True):
    """A model that calls what tools it is offered (unless told otherwise), and answers what it sees with 391."""

    calls: bool = True

    def play(self, exchange):
        """Answer, or call."""
        body = exchange.body
        offered = [tool["function"] for tool in body.get("tools") or () if tool["function"]["name"] != "calculator"]
        last = body["messages"][-1]
        if "What is it?" in json.dumps(last) and "image_url" not in json.dumps(last):
            return exchange.answered(Healthy("I see no image."))
        if last["role"] == "tool":
            seen = [message["content"] for message in body["messages"] if message["role"] == "tool"]
            return exchange.answered(Healthy("I see " + ", ".join(seen)))
        if offered and self.calls:
            cities = ("Rome", "Oslo") if offered[0]["name"] == "get_weather" else ("",)
            given = [{"city": city} if city else {"number": 391} for city in cities]
            calls = [ToolCall(f"up_{at}", offered[0]["name"], one) for at, one in enumerate(given)]
            return exchange.answered(Healthy("", tuple(calls)))
        if body.get("response_format"):
            return exchange.answered(Healthy('{"number": 391}'))
        return exchange.answered(Healthy("No schema came." if "Which?" in json.dumps(last) else "It is 391."))


@contextmanager
def service():
    """Serve the rehearsal, the world, and the names that the SDKs' tests use, in a process of its own."""
    scripts = {"world": World(), "seen": World(calls=False), "slow": SlowFirstToken(3.0)}
    with tempfile.TemporaryDirectory() as folder, BackgroundFaultServer(scripts) as upstream:
        there = {"provider": "openai", "base_url": upstream.url("openai"), "api_key": "k"}
        agents = [
            HELLO,
            {**TYPED, "llm": there | {"model": "world"}},
            *({"name": name, "tools": ["calculator"], "llm": there | {"model": name}} for name in scripts),
        ]
        for agent in agents:
            Path(folder, f"{agent['name']}.yaml").write_text(json.dumps(agent))
        chains = {name: {"chain": [{"provider": "rehearsal", "script": "hello"}]} for name in MODELS}
        Path(folder, "models.yaml").write_text(json.dumps({"models": chains}))
        database = Path(folder, "runs.db")
        serve = [sys.executable, "-m", "shared_libs.cli", "serve", "--configs", folder, "--port", "0"]
        command = [*serve, "--store", f"sqlite:///{database}"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            for line in process.stderr:
                if found := re.search(r"http://\S+", line):
                    threading.Thread(target=process.stderr.read, daemon=True).start()
                    yield found[0], database
                    return
            raise SystemExit("the service did not start")
        finally:
            process.terminate()
            process.wait()


def clients(url: str, python: str) -> None:
    """Ask the agents through every client."""
    told = f"ASK, URL, WEATHER, PIXEL = {ASK!r}, {url!r}, {WEATHER!r}, {PIXEL!r}\n"
    for name, code in CLIENTS.items():
        program = f"{told}{code}\nimport json\nprint('TOLD', json.dumps(told))"
        env = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        done = subprocess.run([python, "-c", program], capture_output=True, text=True, env=env, check=False)
        found = re.search(r"^TOLD (.*)$", done.stdout, re.MULTILINE)
        if found:
            answers = json.loads(found[1])
            right = [name for name, text in answers if WANT in text]
            wrong = [f"{name}: {text!r:.200}" for name, text in answers if WANT not in text]
            print(f"{name:18} {len(right)} of {len(answers)} right: {'; '.join(right)}")
            print("".join(f"{'':18} WRONG {one}\n" for one in wrong), end="", flush=True)
        elif f"No module named '{name}" in done.stderr:
            print(f"{name:18} not installed")
        else:
            print(f"{name:18} FAILED: {done.stderr.strip().splitlines()[-1]}", flush=True)


def sdk_tests(vendor: str, folder: str, url: str, database: Path, python: str, *tests: str) -> None:
    """Run a vendor's own tests, and say why those fail that fail."""
    paths = [f"tests/api_resources/{test}" for test in tests]
    with tempfile.TemporaryDirectory() as plugins:
        Path(plugins, "seeded_responses.py").write_text(SEEDED)
        command = [python, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-p", "seeded_responses"]
        env = os.environ | {
            "TEST_API_BASE_URL": f"{url}/v1" if vendor == "openai" else url,
            "SEED_URL": url,
            "SEED_DATABASE": str(database),
            "PYTHONPATH": plugins,
        }
        command += ["-o", "addopts=", *paths]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    blocks = re.split(r"\n_{3,} .* _{3,}\n", done.stdout.partition("short test summary")[0])[1:]
    why = collections.Counter(map(_reason, blocks))
    passed = int((re.search(r"(\d+) passed", done.stdout) or "00")[1])
    known = {reason for reason, _ in REASONS}
    apply = passed + sum(count for reason, count in why.items() if reason not in known)
    print(f"{vendor}'s own tests: {passed} pass of {apply} that apply, of {passed + len(blocks)}")
    for reason, count in why.most_common():
        print(f"    {count:4} {reason}", flush=True)


def _reason(block: str) -> str:
    told = "\n".join(line for line in block.splitlines() if line.startswith("E ")) or block
    return next((reason for reason, pattern in REASONS if re.search(pattern, told)), told[:200])


def codex(url: str, command: str) -> None:
    """Let codex ask over the Responses API: an agent; with an image, and for an answer of a schema."""
    with tempfile.TemporaryDirectory() as home:
        config = Path(home, ".codex", "config.toml")
        config.parent.mkdir()
        config.write_text(
            f'model = "hello"\nmodel_provider = "f"\n[model_providers.f]\nname = "f"\nbase_url = "{url}/v1"\n'
            'wire_api = "responses"\nenv_key = "KEY"\n'
        )
        Path(home, "pixel.png").write_bytes(base64.b64decode(PIXEL))
        Path(home, "schema.json").write_text(json.dumps(TYPED["output_schema"] | {"additionalProperties": False}))
        env = {"PATH": os.environ["PATH"], "HOME": home, "KEY": "none"}
        asked = [command, "exec", "--skip-git-repo-check", "--sandbox", "read-only"]
        for name, model, question, more in (
            ("the answer of an agent", "hello", ASK, []),
            ("image", "seen", "What is it?", ["-i", "pixel.png"]),
            ("typed", "seen", "Which?", ["--output-schema", "schema.json"]),
        ):
            every = [*asked, "-m", model, question, *more]
            done = subprocess.run(
                every, cwd=home, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
            right = WANT in done.stdout
            print(f"{'codex':18} {name}: {'right' if right else 'FAILED: ' + done.stdout[-300:] + done.stderr[-300:]}")


def conformance(url: str, command: str) -> None:
    """Run the MCP conformance suite; most of its scenarios want fixtures that agents do not have."""
    done = subprocess.run([command, "server", "--url", f"{url}/mcp"], capture_output=True, text=True, check=False)
    passed = re.findall(r"✓ (\S+):", done.stdout)
    print(f"MCP conformance    {len(passed)} scenarios pass: {', '.join(passed)}")


def main() -> None:
    """Run the referees that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable)
    for name in ("openai", "anthropic", "codex", "conformance"):
        parser.add_argument(f"--{name}")
    given = parser.parse_args()
    with service() as (url, database):
        clients(url, given.python)
        if given.codex:
            codex(url, given.codex)
        if given.conformance:
            conformance(url, given.conformance)
        if given.openai:
            tests = ("chat", "responses", "test_responses.py", "test_embeddings.py", "test_models.py")
            sdk_tests("openai", given.openai, url, database, given.python, *tests)
        if given.anthropic:
            sdk_tests("anthropic", given.anthropic, url, database, given.python, "test_messages.py", "test_models.py")


if __name__ == "__main__":
    main()

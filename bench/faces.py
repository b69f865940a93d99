"""
Clients that nobody here wrote, unmodified, against a service that rehearses: no key, no network beyond the loopback.

    python -m bench.faces [--python PYTHON] [--openai DIR] [--anthropic DIR] [--codex FILE] [--conformance FILE]

`PYTHON` is an interpreter that has the clients (`llm`, `pydantic-ai-slim[openai]`, `langchain-openai`, `litellm`,
`mcp`; those it lacks are left out). `DIR` is the unpacked source of a vendor's SDK, whose own tests are run with that
interpreter (they need pytest-asyncio, respx, dirty-equals, inline-snapshot, http-snapshot, time-machine). `FILE` is the
command of codex, or of the MCP conformance suite, as npm installs them.

The SDKs' tests were made for a mock that answers anything. What a real server cannot answer is told apart by its
reason: an id that never was, a call without a model or an input, an operation that the service does not offer.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

ASK = "What is 17 * 23?"
WANT = "391"
MODELS = ("gpt-6-astra", "model", "text-embedding-3-small", "claude-opus-5-5", "claude-1.3")
HELLO = {"name": "hello", "tools": ["calculator"], "llm": {"provider": "rehearsal", "script": "hello"}}

CLIENTS = {
    "mcp": """
import asyncio
from mcp import Client
async def main():
    async with Client(URL + "/mcp") as client:
        return (await client.call_tool("hello", {"question": ASK})).content[0].text
told = [asyncio.run(main())]
""",
    "llm": """
import os, pathlib, subprocess, sys, tempfile
folder = tempfile.mkdtemp()
model = f"- model_id: hello\\n  model_name: hello\\n  api_base: {URL}/v1\\n"
pathlib.Path(folder, "extra-openai-models.yaml").write_text(model)
env = os.environ | {"LLM_USER_PATH": folder, "OPENAI_API_KEY": "none"}
command = [sys.executable, "-m", "llm", "-m", "hello"]
told = [
    subprocess.run([*command, *more, ASK], env=env, capture_output=True, text=True).stdout
    for more in ([], ["--no-stream"])
]
""",
    "pydantic_ai": """
import asyncio
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
told = []
async def main():
    for kind in (OpenAIChatModel, OpenAIResponsesModel):
        agent = Agent(kind("hello", provider=OpenAIProvider(base_url=URL + "/v1", api_key="none")))
        told.append((await agent.run(ASK)).output)
        async with agent.run_stream(ASK) as stream:
            told.append(await stream.get_output())
asyncio.run(main())
""",
    "langchain_openai": """
from langchain_openai import ChatOpenAI
told = []
for responses in (False, True):
    model = ChatOpenAI(model="hello", base_url=URL + "/v1", api_key="none", use_responses_api=responses)
    told += [str(model.invoke(ASK).content), "".join(str(chunk.content) for chunk in model.stream(ASK))]
""",
    "litellm": """
import litellm
said = {"messages": [{"role": "user", "content": ASK}], "api_key": "none"}
chunks = litellm.completion(model="openai/hello", api_base=URL + "/v1", stream=True, **said)
told = [
    litellm.completion(model="openai/hello", api_base=URL + "/v1", **said).choices[0].message.content,
    "".join(chunk.choices[0].delta.content or "" for chunk in chunks),
    litellm.completion(model="anthropic/hello", api_base=URL, max_tokens=50, **said).choices[0].message.content,
    str(litellm.responses(model="openai/hello", api_base=URL + "/v1", api_key="none", input=ASK).output),
]
""",
}

REASONS = (
    ("an id that only a mock knows", r"there is no response|no model '(model_id|.*:.*)'"),
    ("no model or input is sent", r"input is a text|model is a text"),
    ("refused on purpose, with the field", r"is not supported"),
    ("stored completions, fine-tuned models, compaction: not offered", r"405|404"),
    ("the SDK's strict mode refuses the base64 that the SDK asks for", r"CreateEmbeddingResponse"),
)


@contextmanager
def service():
    """Serve the rehearsal, and the names that the SDKs' tests use, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "hello.yaml").write_text(json.dumps(HELLO))
        chains = {name: {"chain": [{"provider": "rehearsal", "script": "hello"}]} for name in MODELS}
        Path(folder, "models.yaml").write_text(json.dumps({"models": chains}))
        command = [sys.executable, "-m", "shared_libs.cli", "serve", "--configs", folder, "--port", "0"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            for line in process.stderr:
                if found := re.search(r"http://\S+", line):
                    yield found[0]
                    return
            raise SystemExit("the service did not start")
        finally:
            process.terminate()
            process.wait()


def clients(url: str, python: str) -> None:
    """Ask the agent through every client."""
    for name, code in CLIENTS.items():
        right = f"assert all({WANT!r} in text for text in told), told\nprint(len(told))"
        checked = f"ASK, URL = {ASK!r}, {url!r}\n{code}\n{right}"
        env = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        done = subprocess.run([python, "-c", checked], capture_output=True, text=True, env=env, check=False)
        if done.returncode == 0:
            print(f"{name:18} {done.stdout.split()[-1]} of {done.stdout.split()[-1]} answers right")
        elif f"No module named '{name}" in done.stderr:
            print(f"{name:18} not installed")
        else:
            print(f"{name:18} FAILED: {done.stderr.strip().splitlines()[-1]}")


def sdk_tests(vendor: str, folder: str, base_url: str, python: str, *tests: str) -> None:
    """Run a vendor's own tests, and say why those fail that fail."""
    paths = [f"tests/api_resources/{test}" for test in tests]
    command = [python, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-o", "addopts=", *paths]
    env = os.environ | {"TEST_API_BASE_URL": base_url}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    blocks = re.split(r"\n_{3,} .* _{3,}\n", done.stdout.partition("short test summary")[0])[1:]
    why = collections.Counter(_reason(block) for block in blocks)
    print(f"{vendor}'s own tests: {done.stdout.strip().splitlines()[-1]}")
    for reason, count in why.most_common():
        print(f"    {count:4} {reason}")


def _reason(block: str) -> str:
    told = "\n".join(line for line in block.splitlines() if line.startswith("E ")) or block
    return next((reason for reason, pattern in REASONS if re.search(pattern, told)), told[:200])


def codex(url: str, command: str) -> None:
    """Let codex ask the agent over the Responses API."""
    with tempfile.TemporaryDirectory() as home:
        config = Path(home, ".codex", "config.toml")
        config.parent.mkdir()
        config.write_text(
            f'model = "hello"\nmodel_provider = "f"\n[model_providers.f]\nname = "f"\nbase_url = "{url}/v1"\n'
            'wire_api = "responses"\nenv_key = "KEY"\n'
        )
        env = {"PATH": os.environ["PATH"], "HOME": home, "KEY": "none"}
        asked = [command, "exec", "--skip-git-repo-check", "--sandbox", "read-only", ASK]
        done = subprocess.run(
            asked, cwd=home, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        print(
            f"{'codex':18} {'right' if WANT in done.stdout else 'FAILED: ' + done.stdout[-300:] + done.stderr[-300:]}"
        )


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
    with service() as url:
        clients(url, given.python)
        if given.codex:
            codex(url, given.codex)
        if given.conformance:
            conformance(url, given.conformance)
        if given.openai:
            tests = ("chat", "responses", "test_responses.py", "test_embeddings.py", "test_models.py")
            sdk_tests("openai", given.openai, f"{url}/v1", given.python, *tests)
        if given.anthropic:
            sdk_tests("anthropic", given.anthropic, url, given.python, "test_messages.py", "test_models.py")


if __name__ == "__main__":
    main()

"""
Whether the service keeps what its OpenAPI document says, by schemathesis with all its checks.

`python -m bench.service_schema` serves a rehearsing agent, once open and once with a key, and has each route asked for
`--seconds` (60) of generated requests. It prints schemathesis' own summary and exits as it does. Needs `schemathesis`.

What it invents is the name of no agent and no model, so half of it is asked of the document with ours in it: of those
requests none may be a 404 for want of a name. Each says that it waits for `WAITS_S`, as long as schemathesis does.

It sends wrong keys by the hundred, and takes anything but a 401 for a hole; the bound on wrong keys of one address,
which answers 429 (`too_many_failures`), is lifted for it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from shared_libs.service import keys
from shared_libs.service.key_format import Key
from shared_libs.service.key_rows import KeyRow, now
from shared_libs.service.key_store import key_store
from shared_libs.service.openapi import document
from shared_libs.service.server import make_server
from shared_libs.service.settings import load_settings

HELLO = """
name: hello
description: Says hello.
llm: {provider: rehearsal, script: hello}
tools: [calculator]
memory: {url: "memory:"}
"""
CHECKS = "all"
WAITS_S = 20
NAMES = ["hello", "hello/chain"]
WHAT_NO_SCHEMA_SAYS = {
    "question": {"type": "string", "pattern": "[a-z]"},  # of messages, which one is the last
    "output_schema": {"enum": [None, {"type": "object", "properties": {"n": {"type": "integer"}}}]},  # what is one
    "timeout": {"type": ["number", "null"], "minimum": 1},  # in how little time nothing can begin, which is a 503
}
CONFIG = """
[[operations]]
include-path = "/v1/responses/{id}/cancel"
checks.positive_data_acceptance.expected-statuses = ["2xx", "4xx"]
"""
"""One refusal depends on what was done before: a response that is not of the background is not cancelled (400)."""


def with_our_names(told: Any) -> Any:
    """Put the names that there are into a document: of models and agents, and a session and a collection for all."""
    if isinstance(told, list):
        return [with_our_names(one) for one in told]
    if not isinstance(told, dict):
        return told
    made = {key: with_our_names(value) for key, value in told.items()}
    if isinstance(made.get("model"), dict) and "type" in made["model"]:
        made["model"] = {"enum": NAMES}
    for name, schema in WHAT_NO_SCHEMA_SAYS.items():
        if name in made and "type" not in made:
            made[name] = schema
    if made.get("in") == "path" and made.get("name") in ("name", "session_id"):
        made["schema"] = {"enum": NAMES[:1]}
    return made


async def served(folder: Path, key: Key | None, arguments: argparse.Namespace) -> int:
    """Serve the folder while schemathesis asks; return its exit code."""
    (folder / "hello.yaml").write_text(HELLO)
    if key is not None:
        await key_store("keys.yaml", folder).keep(KeyRow(id=key.id, hash=key.hash(""), created_at=now()))
    loop = asyncio.get_running_loop()
    started: asyncio.Future[str] = loop.create_future()
    settings = (await asyncio.to_thread(load_settings, folder)).model_copy(
        update={"store": f"sqlite:///{folder / 'runs.db'}", "drain_notice_s": 0.0, "drain_s": 2.0}
    )
    server = make_server(settings, port=0, on_start=lambda urls: started.set_result(urls[0]))
    serving = asyncio.create_task(server.serve())
    try:
        url = await started
        (folder / "schemathesis.toml").write_text(CONFIG)
        (folder / "ours.json").write_text(json.dumps(with_our_names(document(server.config.app))))
        codes = []
        for source in (f"{url}/openapi.json", str(folder / "ours.json")):
            command = ["schemathesis", "run", source, "--url", url, "--checks", CHECKS, "--max-time"]
            command += [str(arguments.seconds // 2), "--continue-on-failure", "--request-timeout", str(WAITS_S)]
            command += ["--no-color", "--warnings", "off", "--seed", str(arguments.seed)]
            command += ["--header", f"X-Request-Timeout: {WAITS_S / 2}"]
            command += [] if key is None else ["--header", f"Authorization: Bearer {key}"]
            process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, cwd=folder)
            told = (await process.communicate())[0].decode()
            print(told if arguments.whole else told[told.rfind("== SUMMARY") - 40 :], flush=True)
            codes.append(process.returncode or 0)
        return max(codes)
    finally:
        server.should_exit = True
        await serving


def main() -> None:
    """Ask, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--whole", action="store_true", help="print all that schemathesis says")
    arguments = parser.parse_args()
    keys.FAILURES = 1_000_000
    codes = []
    for key in (None, Key.new()):
        with tempfile.TemporaryDirectory() as folder:
            print(f"\n# {'open' if key is None else 'with a key'}\n", flush=True)
            codes.append(asyncio.run(served(Path(folder), key, arguments)))
    sys.exit(max(codes))


if __name__ == "__main__":
    main()

"""
The process of a local model: llama.cpp's own server, on loopback, for the one parent that started it.

It is run by its path, so that it imports nothing of this package. The first line of its input says what to load; once
the server listens, its address is printed behind `READY`. It ends with its input: no parent, no process.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

READY = "listening at "

BATCH_TOKENS = 256
"""How much of a prompt is read at a time: a smaller batch lets two calls take turns sooner."""


def main() -> None:
    """Load the model that the first line of the input names, and serve it until the input ends."""
    wanted = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        server = _serve(wanted)
    except Exception as error:  # noqa: BLE001 - the engine is foreign code; what it printed before says more
        print(error, flush=True)  # noqa: T201 - its output is the parent's to read
        os._exit(1)  # what it leaves behind must not end the process by a signal
    # the line before may be of the engine, and not ended
    print(f"\n{READY}{server.listening_address}", flush=True)  # noqa: T201 - this is how the parent learns it
    threading.Event().wait()  # the server serves as long as it is held


def _end_with_the_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)  # whatever the engine is at


def _serve(wanted: dict[str, Any]) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = wanted["file"]
    params.model_alias = {wanted["name"]}
    params.n_parallel = wanted["slots"]
    params.n_ctx = wanted["slots"] * wanted["context_window"]
    params.n_batch = BATCH_TOKENS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = wanted["threads"]
    params.cache_ram_mib = 0  # its default keeps up to 8 GiB of past prompts; each slot keeps its last one anyway
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [wanted["key"]]
    params.ui = False
    params.fit_params = False  # it would load the model twice
    params.verbosity = 1  # errors
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()

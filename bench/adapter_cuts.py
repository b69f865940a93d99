"""
Answers cut off at every byte, in every format that the adapters speak: `python -m bench.adapter_cuts [--step BYTES]`.

Each answer has a text and two calls (an embedding: two vectors), and comes chunked, ended by the end of the connection,
or as a whole body; at even bytes the connection is closed, at odd ones reset. One try, no fallback: what is heard is
the whole answer or an error, and anything else is counted as a truncated success.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import struct
from collections import Counter

from shared_libs.atomic import Resilience
from shared_libs.atomic.errors import LLMError
from shared_libs.atomic.llms.openai_llm import OpenAILLM
from tests.unit.atomic.llms.dialects import DIALECTS, Dialect
from tests.wire_server import Play, WireServer, reply, stream

TEXT, CALLS = "Grün 🌳.", [("call_1", "weather", {"city": "Köln"}), ("call_2", "time", {})]
VECTORS = [[1.0, 2.0], [3.0, 4.0]]
ONCE = Resilience(retry={"attempts": 1}, breaker={"failures": 1_000_000, "reset_s": 60})
AT_ONCE = 16


def plays(dialect: Dialect) -> dict[str, Play]:
    """The ways in which a format brings an answer."""
    kind = "application/x-ndjson" if dialect.provider.provider == "ollama" else "text/event-stream"
    events = dialect.events([TEXT[:5], TEXT[5:]], CALLS, "Hm.")
    closed = stream(events, kind, chunked=False)
    return {
        "chunked": dialect.stream([TEXT[:5], TEXT[5:]], CALLS, "Hm."),
        "closed": closed,
        "whole": dialect.whole(TEXT, CALLS),
    }


async def counted(play: Play, step: int, asked) -> Counter[str]:
    """What becomes of a cut at each byte; `asked` asks a server and says what it heard."""
    found: Counter[str] = Counter()
    turns = asyncio.Semaphore(AT_ONCE)
    async with WireServer(
        lambda seen: play.cut(at := int(seen.body["model"]), "reset" if at % 2 else "close")
    ) as server:

        async def one(at: int) -> None:
            async with turns:
                try:
                    found["whole" if await asked(server, str(at)) else "TRUNCATED SUCCESS"] += 1
                except LLMError:
                    found["error"] += 1

        await asyncio.gather(*(one(at) for at in range(0, len(play) + 1, step)))
    return found


async def main(step: int) -> None:
    """Cut, count and print."""
    bad = 0
    for dialect in DIALECTS:
        for shape, play in plays(dialect).items():

            async def heard(server, model, dialect=dialect, shape=shape):
                async with dialect.llm(server, resilience=ONCE, model=model) as llm:
                    chunks = []
                    response = await llm.async_chat("Hi", on_chunk=None if shape == "whole" else chunks.append)
                    made = [(call.name, call.arguments) for call in response.tool_calls]
                    told = "".join(chunk.text for chunk in chunks if chunk.kind == "text")
                    return response.text == TEXT and made == [call[1:] for call in CALLS] and told in {"", TEXT}

            found = await counted(play, step, heard)
            bad += found["TRUNCATED SUCCESS"]
            print(f"{dialect.name:18} {shape:8} {sum(found.values()):5} cuts: {dict(found)}", flush=True)
    for how, rows in (
        ("numbers", VECTORS),
        ("base64", [base64.b64encode(struct.pack("<2f", *row)).decode() for row in VECTORS]),
    ):
        body = {"data": [{"index": index, "embedding": row} for index, row in enumerate(rows)]}

        async def vectors(server, model):
            base_url = f"http://127.0.0.1:{server.port}/v1"
            async with OpenAILLM(model, api_key="none", base_url=base_url, resilience=ONCE) as llm:
                return (await llm.async_embed(["a", "b"])).tolist() == VECTORS

        found = await counted(reply(body), step, vectors)
        bad += found["TRUNCATED SUCCESS"]
        print(f"{'embeddings':18} {how:8} {sum(found.values()):5} cuts: {dict(found)}", flush=True)
    print(f"truncated successes: {bad}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", type=int, default=1, help="bytes from one cut to the next")
    asyncio.run(main(parser.parse_args().step))

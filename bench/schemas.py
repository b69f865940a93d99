"""
Schemas of tools and objects of arguments as servers and models write them: none may raise, none may hold the loop.

    python -m bench.schemas [--count 10000] [--seed 0] [--programs "mcp-server-filesystem /tmp" …]

The generator draws both over what JSON Schema has and what people make of it: drafts, JavaScript's patterns, dangling,
foreign and circular references, keywords of a wrong type, booleans, deep and wide ones. Each schema goes the way of a
listed MCP tool, each object the way of a call. `--programs` are MCP servers: each is started and listed, and its tools
are called with drawn arguments that do not reach it.

A refusal with its reason (a tool left out, an observation that is an error) is an answer; any other exception counts
as raised. What is timed is the CPU of the loop's thread, which no busy neighbour makes longer. What a thread works at
meanwhile does not hold the loop: the interpreter is handed over every 5 ms.

A collection of garbage holds the loop too, and counts apart: all of it here is the thousands of tools that are drawn
and dropped (a call makes none, and a server's tools stay). What the imports have made is set aside first, as a service
does when it starts (`gc.freeze`, docs/deadlines.md): looking through that alone takes 65 ms of a slow core.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import random
import shlex
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from shared_libs.atomic.tools.base import BaseTool
from shared_libs.tools.mcp import MCPToolset

LONGEST_MS = 50.0
LIST_S = 60.0
KEYS = [
    *("BRAVE_API_KEY", "EVERART_API_KEY", "GITHUB_PERSONAL_ACCESS_TOKEN", "GITLAB_PERSONAL_ACCESS_TOKEN"),
    *("GOOGLE_MAPS_API_KEY", "SLACK_BOT_TOKEN", "SLACK_TEAM_ID", "FIRECRAWL_API_KEY", "TAVILY_API_KEY", "NOTION_TOKEN"),
    *("FIGMA_API_KEY", "PRIVATE_APP_ACCESS_TOKEN"),
]
"""What servers want to be set before they list their tools; nothing is called there, so any word will do."""
KINDS = ["string", "integer", "number", "boolean", "array", "object", "null"]
ODD_KINDS = ["str", "int", "any", "file", "String", "", None, 3, ["string", "null"], [], ["string", "words"], {}]
PATTERNS = [
    *(r"^\d+$", r"(a+)+$", r"^(?=.*\d).+$", r"(?<year>\d{4})-\k<year>", r"\p{Lu}+", r"[^]", r"^[\w-]+$", "("),
    *(r"/^a$/i", r"^(([a-z])+.)+[A-Z]([a-z])+$", r"a{0,100000}", r"\u{1F600}", r"\cA", "[[:alpha:]]", "(?i)abc"),
    "x*" * 40,
]
FORMATS = ["date-time", "email", "uri", "uuid", "ipv4", "regex", "int32", "binary", "nonsense"]
REFERENCES = ["#/$defs/T", "#", "#/$defs/%54", "#/$defs/U"]
ODD_REFERENCES = [
    *("#/definitions/none", "https://example.com/s.json", "T", "#T", "#/$defs/T/items/0/~1~0", "", 5, None),
    *("file:///etc/passwd", "#/properties/a"),
]
NAMES = [
    *("a", "b", "city", "größe", "a b", "a.b", "$ref", "type", "properties", "__proto__", "", "x" * 90, "日本"),
    "a/b~c",
]
WORDS = ["", "a", "a" * 40 + "!", "2024-02-30", "\x00", "🙂" * 9, "x" * 5_000, "null", "[1]"]
HALF = "\ud800"
"""Half a character: our reader of JSON from servers never gives one, arguments of our own callers may hold it."""
NUMBERS = [0, 1, -1, 2**53 + 1, 0.1, 1e308, -0.0]
ODD_NUMBERS = [10**400, float("inf"), float("nan"), True, "3", None]


class Hand:
    """Draws schemas and values; the same ones for a seed."""

    def __init__(self, seed: int) -> None:
        self.any = random.Random(seed)
        self._odd = 0.0
        """How often what is drawn is none of what it should be; in two of three schemas never, or all were left out."""

    def schema(self, depth: int = 0) -> Any:
        """A schema, or what somebody took for one."""
        one = self.any
        if depth == 0:
            self._odd = one.choice([0.0, 0.0, 0.3])
        if depth > 4 or (depth and one.random() < 0.1):
            return self._pick(
                [True, {}, {"type": "string"}], [False, None, "string", [], {"type": one.choice(ODD_KINDS)}]
            )
        kind = one.choice(KINDS) if depth else "object"
        made: dict[str, Any] = {} if one.random() < 0.1 else {"type": kind}
        for _ in range(one.randrange(4)):
            made.update(self._keyword(depth))
        if kind == "object" or one.random() < 0.1:
            names = one.sample(NAMES, one.randrange(5))
            made["properties"] = {name: self.schema(depth + 1) for name in names}
            made["required"] = self._pick([names, names[:1]], [["none"], "a", True, [1], None])
        if depth == 0:
            made["$defs"] = {"T": self.schema(1), "U": {"$ref": "#/$defs/T"}}
            made["definitions"] = made["$defs"]
            made.update(
                self._pick([{}, {"$schema": "http://json-schema.org/draft-04/schema#"}], [{"id": "x"}, {"$id": 3}])
            )
        return made

    def _pick(self, right: list[Any], odd: list[Any]) -> Any:
        return self.any.choice(odd if self.any.random() < self._odd else right)

    def _keyword(self, depth: int) -> dict[str, Any]:
        one, pick = self.any, self._pick

        def deeper() -> Any:
            return self.schema(depth + 1)

        def word(*of: str) -> str:
            return one.choice(of)

        counts, amounts = [0, 1, 3], [*ODD_NUMBERS, -1]
        makes = [
            lambda: {"pattern": one.choice(PATTERNS)},
            lambda: {"format": pick(FORMATS, [7])},
            lambda: {"$ref": pick(REFERENCES, ODD_REFERENCES)},
            lambda: {word("anyOf", "oneOf", "allOf", "prefixItems"): [deeper() for _ in range(pick([1, 2, 3], [0]))]},
            lambda: {word("items", "additionalProperties", "not", "contains", "if", "then", "else"): deeper()},
            lambda: {"items": [deeper(), deeper()], "additionalItems": deeper()},
            lambda: {"enum": [self.value() for _ in range(pick([1, 3, 300], [0]))]},
            lambda: {"const": self.value()},
            lambda: {"default": self.value(), "description": pick(WORDS, [5]), "nullable": True},
            lambda: {word("minimum", "maximum", "exclusiveMinimum", "multipleOf"): pick([1, 0.1, 2**53 + 1], amounts)},
            lambda: {word("minLength", "maxItems", "minProperties"): pick(counts, amounts)},
            lambda: {"patternProperties": {one.choice(PATTERNS): deeper()}, "propertyNames": deeper()},
            lambda: {word("dependencies", "dependentSchemas"): {"a": deeper()}},
            lambda: {"dependentRequired": {"a": pick([["b"]], [deeper(), "b"])}},
            lambda: {word("unevaluatedProperties", "unevaluatedItems"): deeper(), "uniqueItems": pick([True], [3])},
            lambda: {word("x-order", "discriminator", "$comment"): self.value()},
        ]
        return one.choice(makes)()

    def value(self, depth: int = 0) -> Any:
        """Any JSON, and a little beyond."""
        one = self.any
        which = one.randrange(7 if depth < 4 else 4)
        if which == 4:
            return [self.value(depth + 1) for _ in range(one.choice([0, 1, 2, 5]))]
        if which == 5:
            return {one.choice(NAMES): self.value(depth + 1) for _ in range(one.choice([0, 1, 2, 5]))}
        if which == 6:
            return self._long()
        return [one.choice(WORDS), self._pick(NUMBERS, ODD_NUMBERS), None, one.random()][which]

    def _long(self) -> Any:
        if self.any.random() < 0.8:
            return list(range(200))
        deep: Any = 1
        for _ in range(self._pick([20, 50], [200, 3_000])):
            deep = [deep] if self.any.random() < 0.5 else {"a": deep}
        return deep

    def arguments(self, schema: Any) -> dict[str, Any]:
        """Arguments that a model may give for a schema: what it asks for, other things, too few, too many."""
        properties = schema.get("properties") if isinstance(schema, dict) else None
        named = properties if isinstance(properties, dict) else {}
        self._odd = 0.1
        made = {str(name): self.fitting(of) for name, of in named.items() if self.any.random() < 0.9}
        if self.any.random() < 0.2:
            made[self.any.choice(NAMES)] = self.value()
        return made

    def fitting(self, schema: Any, depth: int = 0) -> Any:
        """What a schema asks for at first sight, most of the time."""
        one = self.any
        kind = schema.get("type") if isinstance(schema, dict) else None
        if one.random() < 0.25 or depth > 4:
            return self.value()
        if kind == "object":
            return {name: self.fitting(of, depth + 1) for name, of in (schema.get("properties") or {}).items()}
        if kind == "array":
            return [self.fitting(schema.get("items"), depth + 1) for _ in range(one.choice([0, 1, 3, 100]))]
        simple = {"string": self._pick(WORDS, [HALF, 3]), "boolean": one.choice([True, "true"]), "null": None}
        return simple.get(kind, one.choice(NUMBERS)) if isinstance(kind, str) else one.choice(NUMBERS)


class Judge:
    """Times and counts what becomes of schemas and arguments."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.worst = {"schema": 0.0, "arguments": 0.0, "collection": 0.0}
        self._collecting = self._collected = 0.0
        gc.callbacks.append(self._collects)
        self._tools = MCPToolset(command=["none"])
        nothing = SimpleNamespace(content=[SimpleNamespace(text="done")], is_error=False)

        async def call(*_: Any) -> Any:
            return nothing

        self._tools._server = SimpleNamespace(call=call)  # noqa: SLF001 - the way of a call, without a server

    def _collects(self, phase: str, _: Any) -> None:
        if phase == "start":
            self._collecting = time.thread_time()
            return
        took = time.thread_time() - self._collecting
        self._collected += took
        self.worst["collection"] = max(self.worst["collection"], 1_000 * took)
        self.counts["collections that held the loop"] += 1_000 * took > LONGEST_MS

    def _begin(self) -> float:
        self._collected = 0.0
        return time.thread_time()

    def _took(self, what: str, since: float, of: Any) -> None:
        ms = 1_000 * (time.thread_time() - since - self._collected)
        self.worst[what] = max(self.worst[what], ms)
        if ms > LONGEST_MS:
            self.counts[f"{what} that held the loop"] += 1
            print(f"{ms:.0f} ms for {what}: {_told(of)}")

    async def listed(self, item: Mapping[str, Any]) -> BaseTool | None:
        """Take a server's list of one item the way it is taken."""
        self.counts["schemas"] += 1
        since = self._begin()
        try:
            made = await self._tools._made([item])  # noqa: SLF001
            self.counts["schemas left out"] += not made
            return made[0] if made else None
        except Exception as error:  # noqa: BLE001 - told, whatever it is
            self.counts["schemas that raised"] += 1
            print(f"raised {error!r}: {_told(item)}")
        finally:
            self._took("schema", since, item)
        return None

    async def called(self, tool: BaseTool, arguments: dict[str, Any]) -> None:
        """Call a tool the way a model does."""
        self.counts["arguments"] += 1
        since = self._begin()
        try:
            outcome = await tool.async_run(arguments)
            self.counts["arguments refused"] += outcome.is_error
        except Exception as error:  # noqa: BLE001 - told, whatever it is
            self.counts["arguments that raised"] += 1
            print(f"raised {error!r}: {_told(arguments)}")
        finally:
            self._took("arguments", since, arguments)


def _told(value: Any) -> str:
    try:
        return repr(value)[:300]
    except (RecursionError, ValueError):
        return "what cannot be printed: nested too deep, or a number too long"


async def drawn(judge: Judge, count: int, seed: int) -> None:
    """Draw until there were as many of both."""
    hand = Hand(seed)
    while judge.counts["schemas"] < count or judge.counts["arguments"] < count:
        schema = hand.schema()
        tool = await judge.listed({"name": "tool", "inputSchema": schema})
        for _ in range(2 if tool is not None else 0):
            await judge.called(tool, hand.arguments(schema))


async def of_program(judge: Judge, program: str, seed: int) -> str:
    """Ask a server for its tools as it sends them, and take them one by one."""
    toolset = MCPToolset(command=shlex.split(program), env=dict.fromkeys(KEYS, "none-of-yours"))
    try:
        async with asyncio.timeout(LIST_S):
            _, items = await toolset._server.tools(LIST_S)  # noqa: SLF001 - as they came
    except Exception as error:  # noqa: BLE001 - told, whatever it is
        return f"not listed: {str(error)[:90]}"
    finally:
        await toolset.aclose()
    hand, left_out = Hand(seed), judge.counts["schemas left out"]
    for item in items:
        tool = await judge.listed(item)
        for _ in range(10 if tool is not None else 0):
            await judge.called(tool, hand.arguments(item["inputSchema"]))
    return f"{len(items)} tools, {judge.counts['schemas left out'] - left_out} left out"


async def main(count: int, seed: int, programs: list[str]) -> int:
    """Print what came of it; 1 where something raised or held the loop."""
    gc.collect()
    gc.freeze()
    judge = Judge()
    await drawn(judge, count, seed)
    print(f"drawn: {json.dumps(judge.counts)}; worst {', '.join(f'{k} {v:.1f} ms' for k, v in judge.worst.items())}")
    of_servers = Judge()
    for program in programs:
        print(f"{Path(program.split()[0]).name}: {await of_program(of_servers, program, seed)}", flush=True)
    if programs:
        worst = ", ".join(f"{k} {v:.1f} ms" for k, v in of_servers.worst.items())
        print(f"servers: {json.dumps(of_servers.counts)}; worst {worst}")
    both = judge.counts + of_servers.counts
    return int(any("raised" in what or "held" in what for what in both))


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--programs", nargs="*", default=[])
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.count, given.seed, given.programs)))

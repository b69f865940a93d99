"""
Retrieval in figures: what a search by meaning beside a graph saves, sizes, filters, quality, and the race of readers.

`python -m bench.retrieval sockets | sizes | quality | race`; each prints its table. Ratios of one run are what counts.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from hashlib import blake2b
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvloop

from bench.retrieval_quality import Kept, embedded, quality
from bench.retrieval_sets import sentences
from shared_libs.atomic import BaseLLMWrapper
from shared_libs.atomic.errors import BadRequest
from shared_libs.atomic.llms.wire import Wire
from shared_libs.atomic.types import LLMResponse, Price, Usage
from shared_libs.retrieval import Collection, Document, GraphStore, LexicalIndex, Stores, VectorStore, open_stores
from shared_libs.retrieval.extraction import Extractor
from shared_libs.retrieval.filters import read_filter
from shared_libs.retrieval.ports import DocumentStore
from shared_libs.retrieval.types import (
    Chunk,
    CollectionRow,
    EmbedderIdentity,
    Expanded,
    Found,
    Point,
    Space,
    StoredChunk,
)

EMBED_S, SEARCH_S, GRAPH_S = 0.02, 0.03, 0.08
IDEAL = 1 - max(EMBED_S + SEARCH_S, GRAPH_S) / (EMBED_S + SEARCH_S + GRAPH_S)


def share(values: list[float], part: float) -> float:
    """Return what so large a part of the values does not pass."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


# --- vector beside graph, over sockets


class Remote:
    """Asks the waiting server as our adapters of models ask: what another client costs more is not what is measured."""

    def __init__(self, base: str) -> None:
        self.wire = Wire(base, {})

    async def wait(self, seconds: float) -> None:
        await self.wire.post(f"/{seconds}", b"{}")


class RemoteEmbedder(BaseLLMWrapper):
    provider = "bench"
    obeys = True  # as our adapters of models do

    def __init__(self, remote: Remote) -> None:
        super().__init__("m")
        self.remote = remote

    async def _chat(self, messages, tools, **options):
        raise BadRequest("none")

    async def _embed(self, texts, **options):
        await self.remote.wait(EMBED_S)
        return np.ones((len(texts), 4), "f4")


class RemoteVectors(VectorStore):
    def __init__(self, remote: Remote) -> None:
        self.remote = remote

    async def _search(self, space, vector, k, where):
        await self.remote.wait(SEARCH_S)
        return [Found(f"c{at}", 1 - at / 10) for at in range(5)]


class RemoteGraph(GraphStore):
    def __init__(self, remote: Remote) -> None:
        self.remote = remote

    async def _expand(self, space, question, seeds):
        await self.remote.wait(GRAPH_S)
        return [Expanded("c7", 1.0, ("x",))]


class Lexical(LexicalIndex):
    async def _search(self, space, text, k, where):
        return [Found("c1", 1.0)]


class Documents(DocumentStore):
    async def _collection(self, space):
        return CollectionRow(name="c", embedder=EmbedderIdentity(provider="bench", model="m", dimensions=4), graph=True)

    async def _chunks(self, space, ids):
        chunks = [Chunk(id=id_, document="d", start=0, end=2, text=id_) for id_ in ids]
        return {chunk.id: StoredChunk(chunk=chunk, source="d", title="", metadata={}) for chunk in chunks}


class Waiting(asyncio.Protocol):
    """Answers `POST /{seconds}` after so long, and knows no more of HTTP: its own work is not to be measured."""

    def connection_made(self, transport: Any) -> None:
        self.answer = partial(transport.write, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")

    def data_received(self, data: bytes) -> None:
        seconds = float(data.split(b" ", 2)[1][1:])  # a request that is so short comes in one piece
        asyncio.get_running_loop().call_later(seconds, self.answer)


def serve_waits(told: Connection) -> None:
    """Serve `Waiting`, and tell the port."""

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Waiting, "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()  # until it is ended

    uvloop.run(serve())


class Timed(NamedTuple):
    """What one way of retrieving took: milliseconds of each, and CPU milliseconds of one, without the server's."""

    took: list[float]
    cpu: float

    def ideal(self, waits_s: float, at_once: int) -> float:
        """Return how fast so many at once can be on one core."""
        return max(1e3 * waits_s + self.cpu, at_once * self.cpu)


async def timed(way: Callable[[], Awaitable[None]], at_once: int, runs: int) -> Timed:
    """Keep so many under way until all are done; who begins is spread over the first way's time."""
    took: list[float] = []
    left = iter(range(runs))

    async def worker(number: int) -> None:
        await asyncio.sleep(number / at_once * (EMBED_S + SEARCH_S + GRAPH_S))
        for _ in left:
            began = time.perf_counter()
            await way()
            took.append(1e3 * (time.perf_counter() - began))

    cpu = time.process_time()
    await asyncio.gather(*map(worker, range(at_once)))
    return Timed(took, 1e3 * (time.process_time() - cpu) / runs)


async def sockets(runs: int) -> None:
    """Vector 50 ms (embed 20, search 30) beside graph 80 ms, one after the other and at once, in one run."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve_waits, args=(there,), daemon=True)
    server.start()
    base = f"http://127.0.0.1:{here.recv()}"
    print(
        f"ideal saving {IDEAL:.1%}\nat once | sequential p50 / p95 ms, CPU | parallel p50 / p95 ms, CPU | "
        "saved p50 / p95 | of ideal p95 | of what is left of it at this CPU"
    )
    remote = Remote(base)
    embedder, vectors, graph = RemoteEmbedder(remote), RemoteVectors(remote), RemoteGraph(remote)
    lexical, space = Lexical(), Space(tenant="t", collection="c")
    collection = Collection("c", tenant="t", stores=Stores(Documents(), vectors, lexical, graph), embedder=embedder)

    async def sequential() -> None:
        row = await collection.stores.documents.async_collection(space)
        assert row is not None
        vector = (await embedder.async_embed(["q"]))[0]
        await vectors.async_search(space, vector, 50)
        seeds = await lexical.async_search(space, "q", 50)
        await graph.async_expand(space, "q", [one.id for one in seeds[:5]])
        await collection.stores.documents.async_chunks(space, ["c0"])

    async def parallel() -> None:
        found = await collection.async_retrieve("q")
        assert not found.notes, found.notes

    for at_once in (1, 50):
        rounds: dict[str, list[Timed]] = {"sequential": [], "parallel": []}
        for number in range(6):
            for name, way in (("sequential", sequential), ("parallel", parallel)):
                one = await timed(way, at_once, max(4 * at_once, runs // 10))
                if number:  # the first round opens connections
                    rounds[name].append(one)
        one_by_one, ours = (
            Timed([ms for one in every for ms in one.took], statistics.mean(one.cpu for one in every))
            for every in rounds.values()
        )
        (s50, s95), (p50, p95) = ((share(way.took, 0.5), share(way.took, 0.95)) for way in (one_by_one, ours))
        least = ours.ideal(max(EMBED_S + SEARCH_S, GRAPH_S), at_once)
        possible = 1 - least / one_by_one.ideal(EMBED_S + SEARCH_S + GRAPH_S, at_once)
        print(
            f"{at_once:7} | {s50:.1f} / {s95:.1f}, {one_by_one.cpu:.2f} | {p50:.1f} / {p95:.1f}, {ours.cpu:.2f} | "
            f"{1 - p50 / s50:.1%} / {1 - p95 / s95:.1%} | {(1 - p95 / s95) / IDEAL:.0%} | "
            f"{(1 - p95 / s95) / possible:.0%} of {possible:.1%}"
        )
    await remote.wire.aclose()
    server.terminate()


# --- sizes


class Given(BaseLLMWrapper):
    """Gives vectors that are like those of texts in their numbers, at no cost."""

    provider = "bench"

    def __init__(self) -> None:
        super().__init__("given")

    async def _chat(self, messages, tools, **options):
        raise BadRequest("none")

    async def _embed(self, texts, **options):
        rows = np.stack([np.random.default_rng(abs(hash(text)) % 2**32).normal(size=384) for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("f4")


def passages(count: int) -> list[Document]:
    """Documents of fifty passages each, of words as frequent as words are."""
    chance, vocabulary = random.Random(1), [f"w{at}" for at in range(20_000)]
    weights = [1 / (at + 10) for at in range(len(vocabulary))]
    made = []
    for number in range(count // 50):
        words = chance.choices(vocabulary, weights, k=50 * 60)
        parts = [" ".join(words[at * 60 : at * 60 + 60]) + "." for at in range(50)]
        made.append(
            Document(source=f"d{number}", text="\n\n".join(parts), metadata={"n": number, "five": number % 20 == 0})
        )
    return made


async def sizes(url: str, count: int, asked: int) -> None:
    """Index so many chunks, and time search and retrieve, alone and fifty at once."""
    collection = Collection("c", tenant="t", stores=url, embedder=Given(), chunk_tokens=90)
    began = time.perf_counter()
    *_, last = [so_far async for so_far in collection.async_index(passages(count))]
    row = await collection.async_describe()
    assert row is not None
    told = f"{row.chunks} chunks in {time.perf_counter() - began:.1f} s, {last.failed} failed"
    chance, lines = random.Random(2), []
    questions = [" ".join(f"w{chance.randrange(2_000)}" for _ in range(6)) for _ in range(asked)]
    await collection.async_search(questions[0])
    for name, ask in (("search", collection.async_search), ("retrieve", collection.async_retrieve)):
        for at_once in (1, 50):
            took: list[float] = []
            left = iter(questions)

            async def worker(ask=ask, took=took, left=left) -> None:
                for question in left:
                    began = time.perf_counter()
                    await ask(question, k=10)
                    took.append(1e3 * (time.perf_counter() - began))

            began = time.perf_counter()
            await asyncio.gather(*(worker() for _ in range(at_once)))
            rate = asked / (time.perf_counter() - began)
            lines.append(f"{name} x{at_once}: p50 {share(took, 0.5):.1f} p95 {share(took, 0.95):.1f} ms, {rate:.0f}/s")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{url.partition(':')[0]}: {told}, {memory:.0f} MB\n  " + "\n  ".join(lines))
    await collection.aclose()


async def filters(url: str, count: int, folder: Path) -> None:
    """Recall against exact under filters, on vectors alone: of sentences, by a number and by their chapter."""
    told = sentences(folder, count)
    count = len(told)
    rows = np.array(await embedded(Kept(folder / "vectors.db"), [text for _, text in told]), "f4")
    stores, space = open_stores(url), Space(tenant="t", collection="f")
    await stores.documents.async_create(space, None)
    names = [blake2b(str(at).encode(), digest_size=16).hexdigest() for at in range(count)]  # as the ids of chunks are
    for start in range(0, count, 500):
        points = [
            Point(names[at], rows[at], {"n": at, "chapter": told[at][0]})
            for at in range(start, min(count, start + 500))
        ]
        await stores.vectors.async_upsert(space, points)
    await stores.vectors.async_tidy()
    chance = np.random.default_rng(4)
    asked = rows[chance.integers(0, count, 30)] + chance.normal(size=(30, rows.shape[1])).astype("f4") * 0.02
    chapters: dict[str, list[int]] = {}
    for at, (chapter, _) in enumerate(told):
        chapters.setdefault(chapter, []).append(at)
    ways: list[tuple[str, dict[str, Any] | None, Any]] = [("none", None, range(count))]
    for part in (0.2, 0.05, 0.01, 0.001):
        fits = max(10, int(count * part))
        ways.append((f"number, {part:.1%}", {"n": {"to": fits - 1}}, range(fits)))
        near = min(chapters, key=lambda name: abs(len(chapters[name]) - fits))
        ways.append((f"chapter, {len(chapters[near]) / count:.1%}", {"chapter": near}, chapters[near]))
    for name, where, among in ways:
        chosen, right, took = np.array(among), [], []
        for query in asked:
            began = time.perf_counter()
            found = await stores.vectors.async_search(space, query, 10, read_filter(where))
            took.append(1e3 * (time.perf_counter() - began))
            best = {names[at] for at in chosen[np.argsort(-(rows[chosen] @ query))[:10]]}
            right.append(len(best & {one.id for one in found}) / len(best))
        print(
            f"{url.partition(':')[0]}: {count} sentences, filter {name}: recall {statistics.mean(right):.3f}, "
            f"p50 {share(took, 0.5):.1f} p95 {share(took, 0.95):.1f} ms"
        )
    await stores.aclose()


# --- the race of readers


class Reader(BaseLLMWrapper):
    """Hangs, fails, talks nonsense or reads, after a while."""

    provider = "bench"

    def __init__(self, model: str, after_s: float, answer: Any) -> None:
        super().__init__(model, resilience={"retry": {"attempts": 1}}, price=Price(input=1.0, output=5.0))
        self.after_s, self.answer = after_s, answer

    async def _chat(self, messages, tools, **options):
        await asyncio.sleep(self.after_s)
        if isinstance(self.answer, Exception):
            raise self.answer
        return LLMResponse(text=json.dumps(self.answer), usage=Usage(100, 20))


async def race() -> None:
    """One provider hangs, one fails, one talks nonsense, one is healthy (0.3 s)."""
    good = {"entities": [{"name": "Ada Lovelace", "type": "person"}], "relations": []}
    made_up = {"entities": [{"name": "Elvis Presley", "type": "person"}], "relations": []}
    models = [
        Reader("hanging", 3600, good),
        Reader("failing", 0.05, BadRequest("no")),
        Reader("nonsense", 0.1, made_up),
        Reader("healthy", 0.3, good),
    ]
    took, alone = [], []
    for _ in range(20):
        for readers, into in ((models, took), (models[3:], alone)):
            began = time.perf_counter()
            found = await Extractor(readers).async_extract("Ada Lovelace wrote it.")
            into.append(time.perf_counter() - began)
            if readers is models:
                last = found
    print(
        f"four at once p50 {share(took, 0.5):.3f} s, the healthy one alone {share(alone, 0.5):.3f} s; by {last.model}"
    )
    for row in last.readings:
        tokens = "no tokens" if row.usage is None else f"{'about ' * row.estimated}{row.usage.total_tokens} tokens"
        cost = "nothing" if row.cost_usd is None else f"{row.cost_usd:.6f} USD"
        about = f"{row.model:9} {row.state:9} {row.elapsed_s:.2f} s, {row.attempts} attempts"
        print(f"  {about}, {tokens}, {cost} {row.reason}")


def wanted() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["sockets", "sizes", "filters", "quality", "race"])
    parser.add_argument("--chunks", type=int, default=1_000)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--url", help="where to index; a new SQLite file, or a PostgreSQL")
    parser.add_argument("--postgres", action="store_true", help="on a server of its own")
    parser.add_argument("--set", action="append", default=[], help="fanout, faq, library, zh, vi or pt; by default all")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="keeps texts and vectors of the sets")
    parser.add_argument("--alone", action="store_true", help="without LlamaIndex and Haystack")
    return parser.parse_args()


async def main(given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        url = given.url or f"sqlite:///{folder}/c.db"
        if given.postgres:
            from tests.postgres import running_postgres

            url = f"postgresql://owner@{running.enter_context(running_postgres()).place}"
        match given.part:
            case "sockets":
                await sockets(given.runs)
            case "sizes":
                await sizes(url, given.chunks, given.runs)
            case "filters":
                given.folder.mkdir(parents=True, exist_ok=True)
                await filters(url, given.chunks, given.folder)
            case "quality":
                given.folder.mkdir(parents=True, exist_ok=True)
                await quality(given.folder, given.set, others=not given.alone)
            case "race":
                await race()


if __name__ == "__main__":
    asked = wanted()
    if asked.part == "sockets":  # many at once are the service's: its loop, and what it imports set aside as it does
        gc.collect()
        gc.freeze()
        uvloop.run(main(asked))
    else:
        asyncio.run(main(asked))

"""What there is to ask: the agents of a folder of definitions, and their chains of models, reloaded as one."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from time import time
from typing import Any, Literal, NamedTuple

from shared_libs.agents import ReActAgent
from shared_libs.atomic.errors import ConfigError, FactoryError
from shared_libs.atomic.events import EventSink
from shared_libs.atomic.llms.base import CALL_TIMEOUT_S, BaseLLMWrapper
from shared_libs.atomic.resilience import Resilience
from shared_libs.atomic.types import Price
from shared_libs.factory import agent_from_dict, load_agent, load_collections, load_definition
from shared_libs.factory.prices import FILE_NAME as PRICES
from shared_libs.factory.problems import choices
from shared_libs.factory.source import MAX_BYTES
from shared_libs.retrieval import Collection
from shared_libs.service.audit import digest
from shared_libs.service.callers import Caller
from shared_libs.service.problems import Problem
from shared_libs.service.settings import FILE_NAME as SETTINGS
from shared_libs.service.settings import KEYS_NAME as KEYS

_log = logging.getLogger("shared_libs.service")

MODELS = "models.yaml"
"""Chains of models without an agent: a mapping `models` from a name to what stands under `llm` in a definition."""

LIBRARY = "collections.yaml"
"""Collections without an agent: a mapping `collections`, as it stands in a definition."""

OPEN_S = 10.0
"""Seconds an agent may take to get ready before it is offered all the same; its first run does the rest."""


_PATH = re.compile(rb"""path["']?:[ \t]*["']?([^\r\n"',}#]*)""")
_NOT_PLAIN = re.compile(rb"^\s*$|[$*&|>!{]")
"""A value of `path` in a definition, and what may stand there for one that is not known before it is read."""


class Made:
    """What a definition has made; replaced by a reload, it is closed when its last user has gone."""

    def __init__(self, agent: ReActAgent) -> None:
        self.agent = agent
        self._users = 0
        self._retired = False

    async def aopen(self) -> None:
        """Get it ready; a store that is down now may be up when it is needed."""
        try:
            async with asyncio.timeout(OPEN_S):
                await self.agent.aopen()
        except Exception as error:  # noqa: BLE001 - foreign code: its run says what is wrong, and tries again
            _log.warning("%s is not ready yet: %s", self.agent.name, error)

    async def retire(self) -> None:
        """Close it as soon as nobody uses it."""
        self._retired = True
        await self._close_if_done()

    async def __aenter__(self) -> None:
        self._users += 1

    async def __aexit__(self, *_: object) -> None:
        self._users -= 1
        await self._close_if_done()

    async def _close_if_done(self) -> None:
        if self._retired and not self._users:
            try:
                await self.agent.aclose()
            except Exception:  # noqa: BLE001 - foreign code: nobody is left to whom it matters
                _log.exception("%s did not close well", self.agent.name)


class Entry:
    """
    An agent, or a chain of models, under the name by which it is asked.

    The chain of an agent is an entry of its own, `NAME/chain`: the bare models, without tools and instructions.
    """

    def __init__(self, name: str, made: Made, description: str, *, kind: Literal["agent", "chain"], path: Path) -> None:
        self.name = name
        self.path = path
        self.description = description
        self.kind = kind
        self.created = int(time())
        self._made = made

    @property
    def agent(self) -> ReActAgent:
        """The agent; only of an entry whose kind is "agent"."""
        assert self.kind == "agent"
        return self._made.agent

    @property
    def llm(self) -> BaseLLMWrapper:
        """The chain of models."""
        return self._made.agent.llm

    @cached_property
    def price(self) -> Price | None:
        """What a model of the chain costs, the dearest; None where nobody knows."""
        llm = self.llm
        known = [each.price for each in (llm, *llm.fallbacks) if each.price is not None]
        return max(known, key=lambda price: (price.output, price.input), default=None)

    @property
    def resting_s(self) -> float | None:
        """Seconds until one of its models is asked again, where all have failed too often; None: one may be asked."""
        now = asyncio.get_running_loop().time()
        waits = [llm.health.breaker.left_s(policy.breaker, now) for llm, policy in models_of(self.llm)]
        return min(wait for wait in waits if wait is not None) if None not in waits else None

    @property
    def longest_s(self) -> float:
        """Seconds that asking it may take, by its definition."""
        return self._made.agent.limits.timeout_s if self.kind == "agent" else CALL_TIMEOUT_S

    @cached_property
    def needs(self) -> str:
        """The scope that asking it needs."""
        return f"agents:run:{self.name}" if self.kind == "agent" else f"models:{self.name}"

    def used(self) -> Made:
        """Return a context that keeps it open, whatever is reloaded meanwhile."""
        return self._made


def models_of(llm: BaseLLMWrapper, inherited: Resilience | None = None) -> Iterator[tuple[BaseLLMWrapper, Resilience]]:
    """Yield the models of a chain, each with the policy that it follows."""
    policy = llm.resilience or inherited or Resilience()
    yield llm, policy
    for fallback in llm.fallbacks:
        yield from models_of(fallback, policy)


class Described(NamedTuple):
    """A collection that a definition describes: what is written, whose documents it names, and what it made."""

    written: Any
    tenant: str | None
    collection: Collection


class _File(NamedTuple):
    """A file of the folder: the stamp of what it was made from, what it made, and under which names."""

    stamp: str
    made: tuple[Made, ...]
    entries: tuple[Entry, ...]
    collections: Mapping[str, Described]

    async def close(self) -> None:
        """Close everything, an agent as soon as nobody uses it."""
        for made in self.made:
            await made.retire()
        for described in self.collections.values():
            await described.collection.aclose()


class _Refused(NamedTuple):
    """A file that does not hold: the stamp of what it is made of, and why."""

    stamp: str
    problems: Sequence[str]


class Catalogue:
    """
    The entries of a folder.

    `problems` are the files that do not hold, each with its reasons; what they gave before goes on being offered.
    `collections` are those that definitions describe, by name; `contents` are the files, each as a digest.

    Args:
        folder: the definitions: `*.yaml`, but for prices, scenarios and the service's own settings.
        observers: get the events of every run.
        apart: files of the folder that define nothing to ask.

    """

    def __init__(
        self, folder: Path, observers: Sequence[EventSink] = (), *, apart: Container[str | None] = (SETTINGS, KEYS)
    ) -> None:
        self._folder = folder
        self._apart = apart
        self._observers = observers
        self._files: dict[str, _File] = {}
        self._refused: dict[str, _Refused] = {}
        self._entries: Mapping[str, Entry] = {}
        self.collections: Mapping[str, Described] = {}
        self.contents: Mapping[str, str] = {}
        self.problems: Mapping[str, Sequence[str]] = {}
        self.notes: Mapping[str, Sequence[str]] = {}

    @property
    def size(self) -> int:
        """How much there is to ask."""
        return len(self._entries) + len(self.collections)

    def visible(self, caller: Caller) -> list[Entry]:
        """Return what a caller may ask, by name."""
        return [entry for _, entry in sorted(self._entries.items()) if caller.may(entry.needs)]

    def find(self, caller: Caller, name: str, *, kind: str | None = None) -> Entry:
        """
        Return an entry by its name.

        Raises:
            Problem: there is none, or the caller may not see it, which is the same answer.

        """
        entry = self._entries.get(name)
        if entry is None or not caller.may(entry.needs) or kind not in (None, entry.kind):
            names = [other.name for other in self.visible(caller) if kind in (None, other.kind)]
            raise Problem("model_not_found", f"there is no {kind or 'model'} {name[:80]!r}; {choices(name, names)}")
        return entry

    def definition(self, entry: Entry) -> tuple[str, str]:
        """Return the name of the file that defines an entry, and what it says now; reads the disk."""
        name = next(name for name, file in self._files.items() if entry in file.entries)
        return name, _read_bytes(self._folder / name).decode("utf-8", "replace")

    def file_of(self, name: str) -> str | None:
        """Return the name of the file that defines what has this name; None where nothing has."""
        files = (file for file, read in self._files.items() if any(entry.name == name for entry in read.entries))
        return next(files, None)

    async def load(self) -> bool:
        """
        Look at the folder, and offer what it holds now; returns whether anything has changed.

        Everything is read and built before one reference is swapped. What has not changed stays as it is, with its
        connections and what it remembers.
        """
        contents = await asyncio.to_thread(self._read_contents)
        files, refused, notes = await asyncio.to_thread(self._read, contents)
        apart = self._apart
        self.contents = {name: digest(text) for name, text in contents.items() if name == SETTINGS or name not in apart}
        if (files, refused) == (self._files, self._refused):
            return False
        old, new = ({id(file): file for file in some.values()} for some in (self._files, files))
        await asyncio.gather(*(made.aopen() for key, file in new.items() if key not in old for made in file.made))
        entries: dict[str, Entry] = {}
        collections: dict[str, Described] = {}
        problems: dict[str, Sequence[str]] = {name: file.problems for name, file in refused.items()}
        for name, file in files.items():
            for called, described in file.collections.items():
                if collections.setdefault(called, described).written != described.written:
                    told = f"{name}: the collection {called!r} is described in another way elsewhere, which holds"
                    problems[name] = [*problems.get(name, ()), told]
            for entry in file.entries:
                if entry.name in entries:
                    problems[name] = [*problems.get(name, ()), f"{name}: {entry.name!r} is defined twice"]
                else:
                    entries[entry.name] = entry
        self._entries, self._files, self._refused = entries, files, refused
        self.collections, self.problems, self.notes = collections, problems, notes
        for key, file in old.items():
            if key not in new:
                await file.close()
        return True

    async def aclose(self) -> None:
        """Close everything."""
        for file in self._files.values():
            await file.close()

    def _read_contents(self) -> dict[str, bytes]:
        return {path.name: _read_bytes(path) for path in _definitions(self._folder)}

    def _read(
        self, contents: Mapping[str, bytes]
    ) -> tuple[dict[str, _File], dict[str, _Refused], dict[str, list[str]]]:
        found = {name: text for name, text in contents.items() if name not in self._apart}
        beside = _stamp([found.get(PRICES, b"")])
        files: dict[str, _File] = {}
        refused: dict[str, _Refused] = {}
        notes = {name: list(told) for name, told in self.notes.items() if name in found}
        for name in found:
            if name == PRICES:
                continue
            stamp = _stamp(found[each] for each in sorted(_made_of(name, found))) + beside
            before, again = self._files.get(name), self._refused.get(name)
            if before is not None:
                files[name] = before
            if again is not None and again.stamp == stamp:
                refused[name] = again
            elif before is None or before.stamp != stamp:
                told: list[str] = []
                try:
                    files[name] = self._built(self._folder / name, stamp, told)
                    notes[name] = told
                except (FactoryError, OSError) as error:
                    why = error.problems if isinstance(error, ConfigError) else [str(error)]
                    refused[name] = _Refused(stamp, tuple(why))
        return files, refused, {name: told for name, told in notes.items() if told}

    def _built(self, path: Path, stamp: str, notes: list[str]) -> _File:
        if path.name == MODELS:
            agents = [(name, Made(agent)) for name, agent in self._chains(path, notes)]
            entries = [Entry(name, made, "A chain of models.", kind="chain", path=path) for name, made in agents]
            return _File(stamp, tuple(made for _, made in agents), tuple(entries), {})
        if path.name == LIBRARY:
            return _File(stamp, (), (), _described(path, notes))
        agent = load_agent(path, observers=self._observers, on_note=notes.append)
        description = str(load_definition(path).get("description", ""))
        if agent.llm.rehearsal:
            notes.append(f"{agent.name} rehearses: no model is usable, and its answers say so")
        made = Made(agent)
        chain = Entry(f"{agent.name}/chain", made, f"The models of {agent.name}.", kind="chain", path=path)
        entries = [Entry(agent.name, made, description, kind="agent", path=path), chain]
        return _File(stamp, (made,), tuple(entries), _described(path, []))

    def _chains(self, path: Path, notes: list[str]) -> Iterable[tuple[str, ReActAgent]]:
        written = load_definition(path)
        models = written.get("models")
        if set(written) != {"models"} or not isinstance(models, dict):
            raise ConfigError([f"{path}: allowed is one key, `models`: a mapping from names to chains"])
        for name, llm in models.items():
            try:
                agent = agent_from_dict({"name": name, "llm": llm}, file=path, on_note=notes.append)
            except ConfigError as error:
                raise ConfigError([f"{path}: models.{name}: {problem}" for problem in error.problems]) from error
            yield name, agent


def _described(path: Path, notes: list[str]) -> dict[str, Described]:
    """Make the collections of a definition; what its agent searches it has made itself."""
    written = load_definition(path).get("collections")
    if path.name == LIBRARY and not isinstance(written, dict):
        raise ConfigError([f"{path}: allowed is one key, `collections`: a mapping from names to where they are kept"])
    if not isinstance(written, dict) or not written:
        return {}
    made = load_collections(path, on_note=notes.append)
    return {name: Described(written[name], (written[name] or {}).get("tenant"), made[name]) for name in made}


def _definitions(folder: Path) -> list[Path]:
    every = (path for path in sorted(folder.iterdir()) if path.suffix in (".yaml", ".yml") and path.is_file())
    return [path for path in every if ".scenario." not in path.name and path.name[0] != "."]


def _made_of(name: str, found: Mapping[str, bytes]) -> set[str]:
    """Return the files that one is made of: itself, and those that it and they call; all, where that is not plain."""
    made_of, left = {name}, [name]
    while left:
        for written in _PATH.findall(found[left.pop()]):
            if _NOT_PLAIN.search(written):
                return set(found)
            called = written.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2].strip()
            if called in found and called not in made_of:
                made_of.add(called)
                left.append(called)
    return made_of


def _read_bytes(path: Path) -> bytes:
    """Read a file, no further than one may be long."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError:
        return b""


def _stamp(texts: Iterable[bytes]) -> str:
    whole = hashlib.blake2b(digest_size=16)
    for text in texts:
        whole.update(len(text).to_bytes(8, "big") + text)
    return whole.hexdigest()

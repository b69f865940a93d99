"""The composition root: a definition becomes an agent here, and nowhere else."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, NamedTuple

from pydantic import ValidationError

from shared_libs.agents import Limits, ReActAgent
from shared_libs.atomic.errors import ConfigError, MisuseError
from shared_libs.atomic.events import EventSink
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.llms.structured import OutputSchema
from shared_libs.atomic.memory.base import BaseMemory
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.tools.blocking import caution_for
from shared_libs.atomic.tools.placement import is_async
from shared_libs.factory import chain, library, storage, toolbox
from shared_libs.factory.draft import Draft, kind_of
from shared_libs.factory.durable_agent import DurableAgent
from shared_libs.factory.elsewhere import hint_for_file
from shared_libs.factory.environment import Environment
from shared_libs.factory.ports import OUTSIDE, Ports, without_secrets
from shared_libs.factory.prices import FILE_NAME, Prices, check_prices, prices_beside, shipped_prices
from shared_libs.factory.problems import Path, Problems
from shared_libs.factory.source import read_data, read_source
from shared_libs.factory.spec import AgentSpec, LibrarySpec
from shared_libs.factory.subagent import Origin
from shared_libs.factory.wording import note_errors
from shared_libs.retrieval import Collection

_log = logging.getLogger("shared_libs.factory")

OnNote = Callable[[str], None]


def load_agent(
    path: str | FilePath,
    *,
    tools: Sequence[toolbox.AnyTool] = (),
    llm: BaseLLMWrapper | str | None = None,
    observers: Sequence[EventSink] = (),
    on_note: OnNote = _log.warning,
    ports: Ports | None = None,
) -> ReActAgent:
    """
    Build the agent that a YAML file defines.

    Args:
        path: the file.
        tools: further tools; the definition may name one (`use: its_name`), and those it does not name are added.
        llm: stands in for the whole chain, whose variables then need not be set; or the name of the one model to ask,
            "provider/model", under the definition's policy and, where its chain has the model, with its options.
        observers: get every event of every run.
        on_note: gets what a user should know though it is no error, such as a model left out for want of a key.
        ports: gets every model, tool and memory, and gives back what takes its place.

    Raises:
        ConfigError: the definition does not hold; it tells every problem with its place.

    """
    read = _read(path)
    return _agent(*read, prices_beside(path), _brought(path, tools, llm, observers, on_note, ports))[0]


def agent_from_dict(
    data: Mapping[str, Any],
    *,
    tools: Sequence[toolbox.AnyTool] = (),
    llm: BaseLLMWrapper | str | None = None,
    observers: Sequence[EventSink] = (),
    on_note: OnNote = _log.warning,
    ports: Ports | None = None,
    file: str | FilePath | None = None,
) -> ReActAgent:
    """
    Build the agent that plain data defines: the same keys, checks and arguments as `load_agent`.

    Files that it names are relative to the working directory, or stand beside the `file` that the data is from.
    """
    brought = _brought(file, tools, llm, observers, on_note, ports)
    return _agent(*read_data(data), shipped_prices() if file is None else prices_beside(file), brought)[0]


def check_file(
    path: str | FilePath, *, on_note: OnNote | None = _log.warning, on_missing: Callable[[str], None] | None = None
) -> list[str]:
    """
    Check a definition, or a `prices.yaml`, and return one line per problem; none when it holds.

    Everything is checked that `load_agent` would, but that the keys have values: `${KEY:-}` may be empty here. What is
    not installed here is no problem of the file: `on_missing` gets what would have to be, such as `genai-factory[mcp]`.
    `on_note` gets what a user should know though it is no error; None: nobody is told, and it is not looked for.
    """
    if FilePath(path).name == FILE_NAME:
        return check_prices(path)
    try:
        written, problems = _read(path)
        prices = prices_beside(path)
    except ConfigError as error:
        return list(error.problems)
    parts = _Parts.of(written, problems, prices, _only_checked(Origin(FilePath(path), (), _inner_checked)))
    missing, needs = problems.take_missing()
    if on_note is not None:
        _note_unpriced(parts, prices, on_note)
        _note_blocking(parts, on_note)
        for line in missing:
            on_note(line)
    if on_missing is not None:
        for name in needs:
            on_missing(name)
    return problems.lines()


def _read(path: str | FilePath) -> tuple[Any, Problems]:
    """Read the file of a definition; one of another kind is told as what it is, and not key by key."""
    if not isinstance(path, str | FilePath):
        raise MisuseError(f"a definition is a file's path, not a {type(path).__name__}; agent_from_dict takes data")
    written, problems = read_source(path)
    is_prices = FilePath(path).name == FILE_NAME
    kind = "what models cost; it is read for the definitions beside it" if is_prices else hint_for_file(written)
    if kind:
        problems.add((), f"no definition of an agent, but {kind}")
        problems.raise_if_any()
    return written, problems


def load_collections(path: str | FilePath, *, on_note: OnNote = _log.warning) -> dict[str, Collection]:
    """
    Build the collections that a YAML file defines, and nothing else of it.

    Raises:
        ConfigError: the section does not hold, or the file is no YAML.

    """
    written, problems = read_source(path)
    part = {key: value for key, value in written.items() if key == "collections"} if isinstance(written, dict) else {}
    draft = _draft(part, problems, _only_checked(Origin(FilePath(path), (), _inner_checked)))
    try:
        LibrarySpec.model_validate(draft.data)
    except ValidationError as error:
        note_errors(draft, error, LibrarySpec, draft.data)
    made = library.build_collections(draft, draft.data.get("collections"), prices_beside(path), on_note)
    problems.raise_if_any()
    return made


def load_definition(path: str | FilePath) -> dict[str, Any]:
    """
    Read a file as plain data, variables not expanded; `agent_from_dict` builds the same agent from it.

    Raises:
        ConfigError: it is no YAML of a mapping.

    """
    written, problems = read_source(path)
    if not isinstance(written, dict):
        problems.add((), f"expected a mapping, got {kind_of(written)}")
    problems.raise_if_any()
    return dict(written)


def definition_hash(definition: Mapping[str, Any]) -> str:
    """
    Return the SHA-256 of a definition, as hexadecimal digits.

    Variables are hashed as they are written, so the hash holds no secret and is the same on every machine; comments
    and the order of keys do not count.
    """
    text = json.dumps(definition, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class _Brought(NamedTuple):
    """What the caller adds to the definition."""

    tools: Sequence[toolbox.AnyTool]
    llm: BaseLLMWrapper | str | None
    observers: tuple[EventSink, ...]
    on_note: OnNote
    origin: Origin
    ports: Ports = OUTSIDE


class _Parts(NamedTuple):
    """What a definition gives; all of it is whole only where no problem was found."""

    draft: Draft
    spec: AgentSpec | None
    links: list[chain.Link]
    llm: BaseLLMWrapper | None
    tools: list[toolbox.AnyTool]
    memory: BaseMemory | None

    @classmethod
    def of(cls, written: Any, problems: Problems, prices: Prices, brought: _Brought) -> _Parts:
        """Check every section, and make what can be made, so that one pass finds all problems."""
        draft = _draft(written, problems, brought)
        sections: dict[str, Any] = draft.data if isinstance(draft.data, dict) else {}
        llm, moved = chain.one_form(sections.get("llm"))
        if isinstance(brought.llm, str) and isinstance(written, dict):
            moved = chain.only(written.get("llm"), brought.llm)[1]
        spec = _spec(draft, llm, moved)
        if brought.llm is None and isinstance(draft.data, dict) and llm is None:
            draft.problems.add(("llm",), "is missing; give `chain`, or `provider` and `model`")
        links = chain.read_links(draft, llm, moved)
        ready = brought.llm if isinstance(brought.llm, BaseLLMWrapper) else None
        model = ready or chain.build_chain(draft, links, spec.llm if spec else None, prices, brought.on_note)
        passed = [brought.ports.tool(tool, draft.agent) for tool in brought.tools]
        draft.library.update(library.build_collections(draft, sections.get("collections"), prices, brought.on_note))
        tools = toolbox.build_tools(draft, toolbox.one_form(sections.get("tools")), passed)
        memory = storage.build_memory(draft, sections.get("memory"), model, prices, brought.on_note)
        _check_shape(draft, sections.get("output_schema"))
        return cls(draft, spec, links, model, tools, memory)


def _brought(
    path: str | FilePath | None,
    tools: Sequence[toolbox.AnyTool],
    llm: BaseLLMWrapper | str | None,
    observers: Sequence[EventSink],
    on_note: OnNote,
    ports: Ports | None,
) -> _Brought:
    """Take what the caller brings; the agents of files that a definition names get it too, but for the tools."""
    ports = ports or OUTSIDE
    on_note = _told_once(on_note)

    def build(file: FilePath, origin: Origin) -> tuple[ReActAgent, str]:
        brought = _Brought((), llm, tuple(observers), on_note, origin, ports)
        return _agent(*_read(file), prices_beside(file), brought)

    origin = Origin(None if path is None else FilePath(path), (), build)
    return _Brought(toolbox.checked(tools), llm, tuple(observers), on_note, origin, ports)


def _told_once(on_note: OnNote) -> OnNote:
    """Tell a note once, however many of the definitions it is true of."""
    told: set[str] = set()

    def tell(text: str) -> None:
        if text not in told:
            told.add(text)
            on_note(text)

    return tell


def _only_checked(origin: Origin) -> _Brought:
    return _Brought((), None, (), lambda _: None, origin)


def _inner_checked(file: FilePath, origin: Origin) -> tuple[AgentSpec | None, str]:
    """Check a file that a definition names; its specification has the name, which is all a check needs of an agent."""
    written, problems = _read(file)
    spec = _Parts.of(written, problems, prices_beside(file), _only_checked(origin)).spec
    problems.raise_if_any()
    return spec, spec.description if spec else ""


def _agent(written: Any, problems: Problems, prices: Prices, brought: _Brought) -> tuple[ReActAgent, str]:
    """Make the agent; its description is for those who may call it."""
    parts = _Parts.of(written, problems, prices, brought)
    if parts.llm is None and not problems:
        chain.note_missing_keys(parts.draft, parts.links)
    problems.raise_if_any()
    spec, llm = parts.spec, parts.llm
    assert spec is not None
    assert llm is not None
    if not isinstance(brought.llm, BaseLLMWrapper):
        _note_unpriced(parts, prices, brought.on_note)
    # whoever brings the model or takes the ports plays the agent: nothing of that is worth keeping
    is_real = brought.llm is None and brought.ports is OUTSIDE
    agent = (DurableAgent if spec.durable and is_real else ReActAgent)(
        llm=llm,
        tools=parts.tools,
        instructions=spec.instructions,
        memory=parts.memory,
        limits=Limits(**spec.limits.given()),
        name=spec.name,
        protocol=spec.protocol,
        observers=brought.observers,
        output_schema=spec.output_schema,
    )
    return agent, spec.description


def _check_shape(draft: Draft, written: Any) -> None:
    if isinstance(written, Mapping):
        try:
            OutputSchema(written)
        except MisuseError as error:
            draft.blame(("output_schema",), error)


def _note_blocking(parts: _Parts, on_note: OnNote) -> None:
    """Tell of async tools that are known to block the event loop."""
    for made in parts.tools:
        if isinstance(made, BaseTool) and made.isolation in (None, "loop") and is_async(made.execute):
            caution = caution_for(made.name, made.execute)
            if caution:
                on_note(caution)


def _note_unpriced(parts: _Parts, prices: Prices, on_note: OnNote) -> None:
    """Say that a limit in dollars does not bind models whose price is unknown."""
    if parts.spec is None or parts.spec.limits.max_cost_usd is None:
        return
    if names := chain.unpriced(parts.links, prices):
        place = parts.draft.problems.line_of(("limits", "max_cost_usd"))
        on_note(
            f"max_cost_usd ({place}) does not count {', '.join(names)}: the price is unknown; "
            f"give the model a `price`, or list it in {FILE_NAME}"
        )


def _draft(written: Any, problems: Problems, brought: _Brought) -> Draft:
    environment = Environment(problems)
    meant = written if brought.ports.needs_keys else without_secrets(written)
    if isinstance(brought.llm, str) and isinstance(written, dict):
        data = environment.expanded(meant | {"llm": chain.only(meant.get("llm"), brought.llm)[0]})
    elif brought.llm is not None and isinstance(written, dict):
        rest = environment.expanded({key: value for key, value in meant.items() if key != "llm"})
        data = {key: rest.get(key, value) for key, value in written.items()}
    else:
        data = environment.expanded(meant)
    return Draft(written, data, problems, environment, brought.origin, brought.ports)


def _spec(draft: Draft, llm: Any, moved: Mapping[Path, Path]) -> AgentSpec | None:
    data = draft.data
    if isinstance(data, dict):
        data = data | {"llm": llm} if "llm" in data else data
        data = data | {"tools": toolbox.one_form(data["tools"])} if "tools" in data else data
    try:
        return AgentSpec.model_validate(data)
    except ValidationError as error:
        note_errors(draft, error, AgentSpec, data, moved=moved)
    return None

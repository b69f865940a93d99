"""The `durable` section: how a definition becomes a run in the queue, and how a worker makes its agent again."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

import msgspec

from shared_libs.agents import ReActAgent
from shared_libs.agents.variant import Extras, extended
from shared_libs.atomic.errors import ConfigError
from shared_libs.atomic.events import EventSink
from shared_libs.atomic.llms.structured import OutputSchema
from shared_libs.atomic.secrets import names_a_secret
from shared_libs.durable.jobs import Claim, Submission
from shared_libs.durable.store import check_run_id

_PASSWORD = re.compile(r"://[^/@\s:]*:[^/@\s]+@")


def is_durable(path: str | FilePath) -> bool:
    """
    Whether the runs of the agent that a file defines are durable.

    Raises:
        ConfigError: it is no YAML of a mapping.

    """
    from shared_libs.factory.build import load_definition

    return bool(load_definition(path).get("durable"))


def submission(
    path: str | FilePath,
    question: Any,
    *,
    run_id: str | None = None,
    session_id: str | None = None,
    timeout_s: float | None = None,
    extras: Extras | None = None,
    **more: Any,
) -> tuple[Submission, str]:
    """
    Make a run of the agent that a file defines, to be submitted; return it with the hash of the definition.

    The definition travels with its variables as they are written: their values are those of the worker.

    Args:
        path: the definition.
        question: what to answer.
        run_id: names the run for good; one is made by default.
        session_id: the conversation to continue.
        timeout_s: seconds from the run's start; None: the definition's.
        extras: what is wanted of the agent beside its definition.
        more: of `Submission`: whose it is (`team`, `asked_by`), and `priority`, `delay_s` and limits instead of those
            of the definition.

    Raises:
        ConfigError: the definition does not hold, or has a secret in plain text.
        MisuseError: the id is not valid, or the schema of the answer.

    """
    from shared_libs.factory.build import check_file, definition_hash, load_definition

    if problems := check_file(path, on_note=None):
        raise ConfigError(problems)
    definition = load_definition(path)
    if problems := [f"{path}: {place}: {_WHY}" for place in _plain_secrets(definition)]:
        raise ConfigError(problems)
    if extras is not None and extras.output_schema is not None:
        OutputSchema.of(extras.output_schema)
    run_id = uuid.uuid4().hex if run_id is None else run_id
    check_run_id(run_id)
    wanted = definition.get("durable")
    settings = dict(wanted) if isinstance(wanted, Mapping) else {}
    limits = {"agent_limit": settings.get("concurrency"), "priority": settings.get("priority", 0)}
    given = {name: value for name, value in more.items() if value is not None}
    made = Submission(
        run_id=run_id,
        agent=definition["name"],
        definition=definition,
        file=str(FilePath(path).absolute()),
        question=question,
        session_id=session_id,
        timeout_s=timeout_s,
        extras={} if extras is None else msgspec.to_builtins(extras),
        **(limits | given),
    )
    return made, definition_hash(definition)


def claimed_agent(claim: Claim, observers: Sequence[EventSink]) -> ReActAgent[Any]:
    """
    Make the agent of a run that a worker has claimed.

    Raises:
        ConfigError: it cannot be made here: a tool, an extra, a file or a variable is not there.

    """
    from shared_libs.factory.build import agent_from_dict

    return agent_from_dict(claim.definition, observers=observers, file=claim.file)


def extended_agent(agent: ReActAgent[Any], claim: Claim) -> ReActAgent[Any]:
    """Make of an agent what a run wants of it beside its definition."""
    if not claim.extras:
        return agent
    extras = msgspec.convert(claim.extras, Extras)
    begun = bool(claim.facts) or claim.state is not None
    return extended(agent, extras.of_later_turns() if begun else extras)


_WHY = "holds a secret in plain text, and a durable run keeps its definition; write ${VARIABLE}"


def _plain_secrets(value: Any, place: str = "", *, named: bool = False) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            inner = f"{place}.{key}" if place else str(key)
            yield from _plain_secrets(item, inner, named=named or names_a_secret(str(key)))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _plain_secrets(item, f"{place}[{number}]", named=named)
    elif isinstance(value, str) and value and "${" not in value and (named or _PASSWORD.search(value)):
        yield place

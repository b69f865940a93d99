"""`factory run` and `factory chat`: one loop, one agent, and listeners that show what happens."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
import uuid
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared_libs.agents import ReActAgent
from shared_libs.atomic.errors import FactoryError, MisuseError
from shared_libs.atomic.events import AgentEvent, EventSink, RunFinished, RunStarted
from shared_libs.atomic.memory.base import InProcessMemory
from shared_libs.atomic.results import Action, AgentResult
from shared_libs.cli.exits import CODES, ExitCode
from shared_libs.cli.loop import CommandLoop, Terminated
from shared_libs.cli.past import CLOSE_S, keeping
from shared_libs.cli.plain import PlainView, Viewer
from shared_libs.factory import load_agent
from shared_libs.factory.durability import is_durable
from shared_libs.observability.otel_export import telemetry_from_environment
from shared_libs.observability.printable import presentable, printable
from shared_libs.observability.redact import redact_data
from shared_libs.observability.spool import Spool

if TYPE_CHECKING:
    from shared_libs.observability.record import RunRecorder

MAX_QUESTION = 8 * 1024 * 1024
"""Bytes of a question that are read from stdin; no model takes more."""


def run(arguments: argparse.Namespace) -> int:
    """Answer one question: the answer on stdout, what happens on stderr."""
    question = _checked(_from_stdin() if arguments.question == ["-"] else " ".join(arguments.question))
    if is_durable(arguments.config):
        return _run_durably(arguments, question)
    stage = Stage(arguments, quiet=arguments.json, trace=arguments.trace)
    try:
        if arguments.session is not None and stage.agent.memory is None:
            raise MisuseError(f"{arguments.config} has no `memory`, so there is no session to continue with --session")
        stream = stage.live if arguments.stream is None else arguments.stream
        result = stage.answer(question, arguments.timeout, arguments.session, stream=stream)
        if not arguments.json and sys.stdin.isatty():
            result = _decided(stage, result)
        _print_result(result, as_json=arguments.json)
        stage.conclude(result)
        return CODES[result.status]
    except KeyboardInterrupt as stop:
        _print_interrupted(stage.ended, as_json=arguments.json)
        return ExitCode.TERMINATED if isinstance(stop, Terminated) else ExitCode.INTERRUPTED
    finally:
        stage.close()


def _run_durably(arguments: argparse.Namespace, question: str) -> int:
    from shared_libs.cli.queueing import run_here

    if arguments.model is not None or arguments.system is not None:
        raise MisuseError(f"{arguments.config} is durable: another process may go on with it; change the definition")
    view = None if arguments.json else _view(live=sys.stderr.isatty())
    shown = None if view is None else Spool(view, name="view")
    try:
        result = run_here(arguments, question, None if shown is None else shown.put)
        told = shown is not None and shown.flush()
        _print_result(result, as_json=arguments.json)
        if told and view is not None:
            view.conclude(result)
        return CODES[result.status]
    except KeyboardInterrupt as stop:
        return ExitCode.TERMINATED if isinstance(stop, Terminated) else ExitCode.INTERRUPTED
    finally:
        if view is not None and shown is not None and shown.flush():
            view.close()


def chat(arguments: argparse.Namespace) -> int:
    """Hold a conversation; Ctrl-C stops an answer, Ctrl-D or /exit leaves, /help says what there is."""
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    stage = Stage(arguments, quiet=False, trace=None)
    if stage.agent.memory is None:
        stage.agent.memory = InProcessMemory()
    session = arguments.session or f"chat-{uuid.uuid4().hex[:8]}"
    code = ExitCode.ANSWERED
    if interactive:
        import readline  # noqa: F401 - gives `input` a history and line editing

        name = printable(stage.agent.name)
        print(f"{name}: ask away; /help says what else there is (session {session})", file=sys.stderr)
    elif isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a line that is no UTF-8 is told, and the next one answered
    try:
        for line in iter(lambda: _ask("you> " if interactive else ""), None):
            if not line.strip():
                continue
            if _COMMAND.fullmatch(line.strip()):
                print(_CHAT_HELP if line.strip() == "/help" else f"no such command; {_CHAT_HELP}", file=sys.stderr)
                continue
            try:
                result = stage.answer(_checked(line), None, session, stream=True)
                if interactive:
                    result = _decided(stage, result)
                _print_result(result, as_json=False)
                stage.conclude(result)
                code = CODES[result.status]
            except MisuseError as error:
                print(error, file=sys.stderr)
                code = ExitCode.MISUSE
            except KeyboardInterrupt as stop:
                if not interactive:
                    return ExitCode.TERMINATED if isinstance(stop, Terminated) else ExitCode.INTERRUPTED
                print("stopped; nothing of this turn is remembered", file=sys.stderr)
        return ExitCode.ANSWERED if interactive else code
    finally:
        stage.close()


class Stage:
    """
    An agent on a loop with its listeners: the view, and the run record where one is wanted.

    `ended` is the result of the last run, a cancelled one included. `live` tells whether a terminal watches.
    """

    def __init__(self, arguments: argparse.Namespace, *, quiet: bool, trace: Path | None) -> None:
        self.ended: AgentResult | None = None
        self.live = not quiet and sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
        self._view = None if quiet else _view(live=self.live)
        # a slow terminal, or a pager at the end of a pipe, must not hold up the run
        self._shown: Spool[Callable[[], None]] | None = None
        if self._view is not None:
            self._shown = Spool(lambda show: show(), name="view")
        self._recorder = _recorder(trace)
        observers: list[EventSink] = [_OuterRuns(self._keep)]
        observers += [] if self._view is None else [_OuterRuns(self._show)]
        observers += [] if self._recorder is None else [self._recorder]
        self._runs = keeping(arguments.store, _note(quiet=quiet))
        observers += [] if self._runs is None else [self._runs.observer(source="cli")]
        telemetry = telemetry_from_environment()
        observers += [] if telemetry is None else [telemetry]
        self.agent: ReActAgent = load_agent(
            arguments.config, llm=arguments.model, observers=observers, on_note=_note(quiet=quiet)
        )
        if arguments.system is not None:
            self.agent.instructions = arguments.system
        self._loop = CommandLoop()
        self._open = False

    def answer(self, question: str, timeout: float | None, session: str | None, *, stream: bool) -> AgentResult:
        """
        Answer a question; what is to be seen of it has been shown when this returns.

        Raises:
            KeyboardInterrupt: a signal stopped it.

        """
        return self._watch(lambda: self._result(question, timeout, session, stream=stream))

    def resume(self, state: Mapping[str, Any], decisions: Mapping[str, bool]) -> AgentResult:
        """
        Go on with a paused run.

        Raises:
            KeyboardInterrupt: a signal stopped it.

        """
        return self._watch(lambda: self.agent.async_resume(state, decisions))

    def conclude(self, result: AgentResult) -> None:
        """Tell what a run took; it is shown when this returns, so that it cannot fall into a prompt."""
        if self._view is not None and self._shown is not None:
            self._shown.put(partial(self._view.conclude, result))
            self._shown.flush()

    def close(self) -> None:
        """Close everything; whatever does not end is left behind."""
        if self._open:
            self._loop.clean_up(self.agent.aclose())
        self._loop.close()
        if self._view is not None and self._shown is not None and self._shown.flush():
            self._view.close()
        if self._recorder is not None:
            try:
                self._recorder.close()
            except FactoryError as error:
                print(f"warning: {error}", file=sys.stderr)

        if self._runs is not None:
            self._runs.close(CLOSE_S)

    def _watch(self, run: Callable[[], Coroutine[Any, Any, AgentResult]]) -> AgentResult:
        self.ended = None
        try:
            if not self._open:
                self._loop.run(self.agent.aopen())
                self._open = True
            return self._loop.run(run())
        finally:
            if self._shown is not None:
                self._shown.flush()

    async def _result(self, question: str, timeout: float | None, session: str | None, *, stream: bool) -> AgentResult:
        async for _ in self.agent.async_stream(question, timeout=timeout, session_id=session, stream=stream):
            pass
        assert self.ended is not None
        return self.ended

    def _show(self, event: AgentEvent) -> None:
        assert self._view is not None
        assert self._shown is not None
        self._shown.put(partial(self._view, event))

    def _keep(self, event: AgentEvent) -> None:
        if isinstance(event, RunFinished):
            self.ended = event.result


def _decided(stage: Stage, result: AgentResult) -> AgentResult:
    """Let the person at the terminal decide on the calls that wait, until none does; no answer is a no."""
    while result.state is not None:
        decisions = {}
        for call in result.pending:
            print(f"{presentable(call.tool)} wants to run with {_whole(call)}", file=sys.stderr)
            said = _ask("allow it? [y/N] ")
            decisions[call.call_id] = (said or "").strip().lower() in ("y", "yes")
        result = stage.resume(result.state, decisions)
    return result


def _whole(call: Action) -> str:
    """All of a call's input: nobody approves what is cut off."""
    return presentable(json.dumps(redact_data(call.input), ensure_ascii=False))


class _OuterRuns:
    """Passes on the events of the runs a user began, not of those that agents began for them."""

    def __init__(self, sink: EventSink) -> None:
        self._sink = sink
        self._inner: set[str] = set()

    def __call__(self, event: AgentEvent) -> None:
        if isinstance(event, RunStarted) and event.parent_run_id is not None:
            self._inner.add(event.run_id)
        if event.run_id not in self._inner:
            self._sink(event)
        elif isinstance(event, RunFinished):
            self._inner.remove(event.run_id)


_COMMAND = re.compile(r"/[a-z]+")
_CHAT_HELP = "/exit or Ctrl-D leaves, Ctrl-C stops an answer, /help says this; anything else is a question"


def _ask(prompt: str) -> str | None:
    """Read one line; None at the end, or when the user leaves."""
    try:
        line = input(prompt)
    except EOFError:
        return None
    except KeyboardInterrupt:
        print("\nCtrl-D or /exit leaves", file=sys.stderr)
        return ""
    return None if line.strip() in ("/exit", "/quit") else line


def _from_stdin() -> str:
    data = sys.stdin.buffer.read(MAX_QUESTION + 1)
    if len(data) > MAX_QUESTION:
        raise MisuseError(f"the question on stdin is longer than {MAX_QUESTION:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MisuseError(f"the question on stdin is not valid UTF-8: {error.reason} at byte {error.start}") from None


def _checked(question: str) -> str:
    """
    Take a question.

    Raises:
        MisuseError: it is empty, or no valid UTF-8.

    """
    try:
        question.encode()
    except UnicodeEncodeError as error:
        raise MisuseError(f"the question is not valid UTF-8: undecodable byte at character {error.start}") from None
    if not question.strip():
        raise MisuseError("the question is empty")
    return question


def _view(*, live: bool) -> Viewer:
    if live:
        from shared_libs.cli.live import LiveView

        return LiveView(sys.stderr)
    return PlainView(sys.stderr)


def _recorder(path: Path | None) -> RunRecorder | None:
    if path is None:
        return None
    from shared_libs.observability.record import RunRecorder

    return RunRecorder(path, mode="replace")


def _note(*, quiet: bool) -> Callable[[str], None]:
    return (lambda _: None) if quiet else (lambda text: print(f"note: {presentable(text)}", file=sys.stderr))


def _print_result(result: AgentResult, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result.to_dict(), ensure_ascii=False), flush=True)
        return
    if result.answer is not None:
        _print_answer(result.answer)
    _print_sources(result)
    if result.still_running:
        names = ", ".join(presentable(row.tool) for row in result.still_running)
        print(f"left behind, still running: {names}", file=sys.stderr)
    for call in result.pending:
        print(f"waits for approval: {presentable(call.tool)} {_whole(call)}", file=sys.stderr)
    why = presentable(result.error or "")
    if result.status != "answered":
        print(f"{result.status} ({result.stop_reason}){why and ': '}{why}", file=sys.stderr)
    elif why:
        print(f"warning: {why}", file=sys.stderr)


def _print_answer(answer: str) -> None:
    """Print an answer: to a file or a pipe as it is, on a terminal laid out."""
    if not sys.stdout.isatty() or os.environ.get("TERM") in ("dumb", "unknown"):
        print(printable(answer) if sys.stdout.isatty() else answer, flush=True)
        return
    from shared_libs.cli.drawn import print_answer

    print_answer(answer, sys.stdout)


def _print_sources(result: AgentResult) -> None:
    """Say where the passages stand that the answer cites, and which of its citations name nothing it has seen."""
    if "[" not in (result.answer or "") or not any(step.observations for step in result.steps):
        return
    from shared_libs.tools.retrieval import cited

    found = cited(result)
    for source in found.citations:
        place = f"{source.source}, characters {source.start} to {source.end}"
        print(presentable(f"[{source.key}] {source.title}: {place}"), file=sys.stderr)
    if found.unknown:
        print(f"warning: cited, but never seen: {', '.join(found.unknown)}", file=sys.stderr)


def _print_interrupted(ended: AgentResult | None, *, as_json: bool) -> None:
    """Say that a signal stopped it, and give what there was."""
    if sys.stderr.isatty():
        print(
            "\x1b[?25h", end="", file=sys.stderr, flush=True
        )  # a progress bar that was stopped half-way has hidden the cursor
    if as_json and ended is not None:
        _print_result(ended, as_json=True)
        return
    print("interrupted" + (f" after {ended.elapsed_s:.2f} s" if ended else ""), file=sys.stderr)
    if ended is not None and ended.answer:
        print(presentable(ended.answer), file=sys.stderr)

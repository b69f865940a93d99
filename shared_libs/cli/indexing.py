"""`factory index`: documents into a collection, with a progress bar; broken off, it does the rest next time."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.cli.exits import ExitCode
from shared_libs.cli.loop import CommandLoop, Terminated
from shared_libs.factory import load_collections
from shared_libs.factory.library import default_embedder
from shared_libs.observability.printable import presentable
from shared_libs.retrieval import Collection, IndexProgress, find_files
from shared_libs.retrieval.files import File

Show = Callable[[IndexProgress, int], None]

MOST_NOTES = 10
"""Reasons for leaving files out that are told."""


def index(arguments: argparse.Namespace) -> int:
    """Index files and folders: a summary on stdout, the progress and what failed on stderr."""
    if not arguments.paths and not arguments.rebuild:
        raise MisuseError("name the files or folders to index: factory index PATH --collection NAME")
    collection = _collection(arguments)
    left: list[tuple[Path, str]] = []
    files = list(find_files(arguments.paths, left_out=lambda path, why: left.append((path, why))))
    for line in _told(left):
        _note(line)
    loop = CommandLoop()
    try:
        last = loop.run(_shown(collection, arguments, files, [path for path, _ in left]))
    except KeyboardInterrupt as stop:
        print("interrupted; what was done is kept, and the same command does the rest", file=sys.stderr)
        return ExitCode.TERMINATED if isinstance(stop, Terminated) else ExitCode.INTERRUPTED
    finally:
        loop.clean_up(collection.aclose())
        loop.close()
    for problem in last.problems:
        print(presentable(problem), file=sys.stderr)
    if last.failed:
        return ExitCode.FAILED if last.failed == last.documents_done else ExitCode.PARTIAL
    return ExitCode.ANSWERED


def _collection(arguments: argparse.Namespace) -> Collection:
    name = arguments.collection
    if arguments.config is not None:
        known = load_collections(arguments.config, on_note=_note)
        if name not in known:
            raise MisuseError(f"{arguments.config} has no collection {name!r}; it has {', '.join(known) or 'none'}")
        return known[name]
    embedder = default_embedder()
    if embedder is None:
        _note("no embedder is installed, so it is searched by words only; pip install 'genai-factory[retrieval]'")
    return Collection(name, tenant=arguments.tenant, stores=arguments.url, embedder=embedder)


def _told(left: list[tuple[Path, str]]) -> Iterator[str]:
    """Say what is left out of the folders, one line for each reason, the commonest first."""
    for why, count in Counter(why for _, why in left).most_common(MOST_NOTES):
        first = next(path for path, reason in left if reason == why)
        yield f"left out: {first}{f' and {count - 1} more' if count > 1 else ''}: {why}"


async def _shown(
    collection: Collection, arguments: argparse.Namespace, files: list[File], left: list[Path]
) -> IndexProgress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[told]}"))
    last = IndexProgress()
    removed = 0
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        if arguments.rebuild:
            last = await _followed(collection.async_rebuild(), progress, "embedding anew", None)
        if files:
            last = await _followed(collection.async_index(files, total=len(files)), progress, "indexing", len(files))
        removed = await _remove_what_has_gone(collection, arguments.paths, files, left)
        if arguments.paths and not files and not removed:
            raise MisuseError(f"{', '.join(map(str, arguments.paths))}: no file of a kind that is read")
        if collection.extractor is not None:
            read = await _followed(collection.async_extract(), progress, "reading", None)
            problems = last.problems + read.problems
            last = msgspec.structs.replace(last, problems=problems, failed=last.failed + read.failed)
    row = await collection.async_describe()
    if row is not None:
        print(
            f"{presentable(collection.name)}: {_count(row.documents, 'document')}, {_count(row.chunks, 'chunk')} "
            f"({last.unchanged} unchanged, {_count(last.embedded, 'chunk')} embedded, {last.reused} reused, "
            f"{removed} removed, {last.failed} failed) in {last.elapsed_s:.1f} s"
        )
    return last


async def _followed(
    steps: AsyncIterator[IndexProgress], progress: object, what: str, total: int | None
) -> IndexProgress:
    from rich.progress import Progress

    assert isinstance(progress, Progress)
    bar = progress.add_task(what, total=total, told="")
    last = IndexProgress()
    async for last in steps:
        told = f"{last.embedded} chunks embedded" + (f", {last.failed} failed" if last.failed else "")
        progress.update(bar, completed=last.documents_done, told=told)
    return last


async def _remove_what_has_gone(
    collection: Collection, paths: Iterable[Path], files: Iterable[File], left: Iterable[Path]
) -> int:
    """Remove the documents of files that stood in one of the folders and do no more; what was left out has not gone."""
    there = {file.source for file in files}
    unseen = tuple(f"{File(path).source}{os.sep}" for path in left)
    folders = tuple(f"{path.absolute().as_posix()}{os.sep}" for path in paths if path.is_dir())
    after, gone = "", []
    while rows := await collection.async_documents(after=after):
        after = rows[-1].id
        here = [row.source for row in rows if row.source.startswith(folders) and row.source not in there]
        gone += [source for source in here if not f"{source}{os.sep}".startswith(unseen)]
    for source in gone:
        await collection.async_remove(source)
    return len(gone)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _note(text: str) -> None:
    print(f"note: {presentable(text)}", file=sys.stderr)

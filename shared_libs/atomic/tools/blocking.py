"""
Async tools that are known to block the event loop, told by their source before they do it.

A call is known by the name of what it calls, whatever it is imported as. Functions of the same module that the tool
calls are looked at too; those it only hands on, as to `asyncio.to_thread`, are not.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import logging
import textwrap
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

_log = logging.getLogger(__name__)

BLOCKING = (
    *("time.sleep", "input", "os.system", "os.popen", "os.wait", "os.waitpid", "select.select"),
    *("subprocess.run", "subprocess.call", "subprocess.check_call", "subprocess.check_output", "subprocess.getoutput"),
    *("requests.", "urllib.request.urlopen", "urllib3.request", "urllib3.PoolManager", "http.client.HTTPConnection"),
    *("httpx.get", "httpx.post", "httpx.put", "httpx.patch", "httpx.delete", "httpx.head", "httpx.request"),
    *("httpx.stream", "httpx.Client", "httpx._api.", "httpx._client.Client"),
    *("socket.create_connection", "socket.getaddrinfo", "socket.gethostbyname"),
    *("ftplib.FTP", "smtplib.SMTP", "imaplib.IMAP4", "poplib.POP3", "paramiko.", "boto3."),
    *("sqlite3.connect", "_sqlite3.connect", "psycopg.connect", "psycopg2.", "pymysql.", "MySQLdb."),
    *("mysql.connector.", "pyodbc.connect", "oracledb.connect", "cx_Oracle.", "duckdb.connect", "pymongo."),
    *("sqlalchemy.create_engine", "sqlalchemy.engine.create.create_engine", "redis.Redis", "redis.client.Redis"),
)
"""What blocks, by its full name; a name with a dot at its end stands for all of a package."""

_WORDS = [frozenset(filter(None, name.split("."))) for name in BLOCKING]
_DEPTH = 3


def suspicious(execute: Callable[..., Any]) -> bool:
    """
    Whether the compiled code mentions all words of such a name: cheap, and reads no file.

    A `get` alone, as of a dict, is nothing: the source is parsed in a thread, and who parses elsewhere at the same time
    (an import under pytest, a cell of a notebook) may get a SystemError for it on old Pythons.
    """
    mentioned = [frozenset(_mentioned(function)) for function in _own_functions(execute)]
    return any(words <= own for own in mentioned for words in _WORDS)


def warn_of_blocking(name: str, execute: Callable[..., Any]) -> None:
    """Log what blocks in an async tool, and what to declare."""
    if caution := caution_for(name, execute):
        _log.warning("%s", caution)


def caution_for(name: str, execute: Callable[..., Any]) -> str:
    """Say what blocks in an async tool, and what to declare; empty where nothing is known to. It reads the source."""
    found = sorted({call for function in _own_functions(execute) for call in _blocking_calls(function)})
    if not found:
        return ""
    return (
        f"tool {name} is async, but {', '.join(found)} blocks the event loop, and with it every run there: declare "
        "isolation 'thread' (or 'process'), make the tool a plain function, or await an async library"
    )


def _own_functions(execute: Callable[..., Any]) -> Iterator[FunctionType]:
    """The function of a tool, and the plain functions of its module that it names."""
    first = inspect.unwrap(getattr(execute, "__func__", execute))
    todo, seen = [(first, 0)], set[Any]()
    while todo:
        function, depth = todo.pop()
        if not isinstance(function, FunctionType) or function in seen:
            continue
        seen.add(function)
        yield function
        if depth < _DEPTH:
            named = (function.__globals__.get(name) for name in function.__code__.co_names)
            todo += [(other, depth + 1) for other in named if getattr(other, "__module__", "") == first.__module__]


def _mentioned(function: FunctionType) -> Iterator[str]:
    """Every name in the code of a function, and the names of what they stand for."""
    known = {**function.__globals__, **_closure(function)}
    for name in (*function.__code__.co_names, *function.__code__.co_freevars):
        yield name
        if name in known:
            yield from _defined_as(known[name]).split(".")


def _blocking_calls(function: FunctionType) -> Iterator[str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError, ValueError, SystemError):
        return  # the last: two threads have parsed at once, which old Pythons take ill (python/cpython#106905)
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    known = {**vars(builtins), **function.__globals__, **_closure(function)}
    for node in _walk(definition.body):
        if isinstance(node, ast.Import):
            for alias in node.names:
                known[alias.asname or alias.name.partition(".")[0]] = _Named(alias.name, alias.asname)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            known |= {alias.asname or alias.name: _Named(f"{node.module}.{alias.name}", "-") for alias in node.names}
        elif isinstance(node, ast.Call) and any(_blocks(name) for name in _full_names(node.func, known)):
            yield ast.unparse(node.func)


def _blocks(name: str) -> bool:
    return any(name == entry or (entry.endswith(".") and name.startswith(entry)) for entry in BLOCKING)


class _Named:
    """What an import inside a function binds, known by name only."""

    def __init__(self, name: str, alias: str | None) -> None:
        self.name = name if alias else name.partition(".")[0]


def _walk(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Every node in the order of the source, but for functions inside, which may run elsewhere, and what is awaited."""
    todo: list[ast.AST] = [*reversed(body)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(node, ast.Await) and isinstance(node.value, ast.Call):
            todo += [*node.value.args, *node.value.keywords]
            continue
        yield node
        todo += reversed([*ast.iter_child_nodes(node)])


def _full_names(called: ast.expr, known: dict[str, Any]) -> list[str]:
    """Give the names by which what is called may be known: as it is reached, and as it was defined."""
    parts: list[str] = []
    while isinstance(called, ast.Attribute):
        parts.insert(0, called.attr)
        called = called.value
    if not isinstance(called, ast.Name) or called.id not in known:
        return []
    root = known[called.id]
    if isinstance(root, _Named):
        return [".".join([root.name, *parts])]
    reached = ".".join([root.__name__, *parts]) if isinstance(root, ModuleType) else ""
    for part in parts:
        root = inspect.getattr_static(root, part, None)
    return [reached, _defined_as(root)]


def _defined_as(thing: Any) -> str:
    """Give the full name of a module, class or function; empty for anything else."""
    if isinstance(thing, ModuleType):
        return thing.__name__
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return ""
    return name if module == "builtins" else f"{module}.{name}"


def _closure(function: FunctionType) -> dict[str, Any]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
    return {name: cell.cell_contents for name, cell in cells if _is_filled(cell)}


def _is_filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True

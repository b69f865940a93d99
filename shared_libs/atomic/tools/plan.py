"""
How a tool is made anew in another process: by the name it has in its module, and its constructor's arguments as JSON.

Nothing is pickled. What has no such name, or takes what JSON does not hold, is refused where the tool is declared.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import msgspec

from shared_libs.atomic.errors import MisuseError

WORKER_MAIN = "__factory_main__"
"""What a worker calls the script that its parent runs as `__main__`, so that its guarded part does not run again."""


class Plan(msgspec.Struct, frozen=True):
    """
    What a worker is told to make.

    `script` is the file of the parent's `__main__`, where the tool stands in it.
    """

    module: str
    name: str
    script: str = ""
    arguments: list[Any] = []
    options: dict[str, Any] = {}
    memory_limit_mb: int | None = None

    def find(self) -> Any:
        """Import what the plan names."""
        found: Any = _run_script(self.script) if self.script else import_module(self.module)
        for part in self.name.split("."):
            found = getattr(found, part)
        return found


def plan_of(
    tool_name: str,
    thing: Callable[..., Any],
    made_with: tuple[Sequence[Any], Mapping[str, Any]],
    memory_limit_mb: int | None,
) -> Plan:
    """
    Plan how to make a tool again: `thing` is its function, or its class with the arguments it was made with.

    Raises:
        MisuseError: it cannot be made again.

    """
    start = f"{tool_name}: isolation 'process' makes the tool again in another process"
    module = getattr(thing, "__module__", "")
    name = getattr(thing, "__qualname__", "")
    script = ""
    if module == "__main__":
        main = sys.modules["__main__"]
        if main.__spec__ is not None:
            module = main.__spec__.name
        elif Path(getattr(main, "__file__", None) or "").is_file():
            script = str(Path(main.__file__ or "").resolve())
        else:
            raise MisuseError(f"{start}; what is typed at a prompt cannot be found there: put it into a file")
    found: Any = sys.modules.get(thing.__module__)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not thing and getattr(found, "execute", None) is not thing:
        raise MisuseError(f"{start}, by its name in its module; {module}.{name} is not there: define it at the top")
    arguments, options = made_with
    for place, value in (*enumerate(arguments, 1), *options.items()):
        if not _is_json(value):
            raise MisuseError(f"{start}, with its arguments as JSON; argument {place} is a {type(value).__name__}")
    return Plan(module, name, script, [*arguments], {**options}, memory_limit_mb)


def _is_json(value: Any) -> bool:
    """Whether the very value comes back from JSON."""
    try:
        same: bool = msgspec.json.decode(msgspec.json.encode(value)) == value
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError):
        return False
    return same


def _run_script(path: str) -> Any:
    """Load the parent's script, under a name by which it knows that it is not the program."""
    spec = spec_from_file_location(WORKER_MAIN, path)
    if spec is None or spec.loader is None:
        raise MisuseError(f"{path} is no Python file")
    module = module_from_spec(spec)
    sys.modules[WORKER_MAIN] = sys.modules["__main__"] = module
    spec.loader.exec_module(module)
    return module

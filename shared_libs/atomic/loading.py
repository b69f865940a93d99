"""Libraries that are loaded on first use: in a thread, so that the event loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import time
from importlib import import_module
from types import ModuleType

from shared_libs.atomic.errors import MisuseError, NotInstalled

_loaded: set[str] = set()
"""What is loaded to its end: a module stands in `sys.modules` as soon as another thread has begun to load it."""

ROOM = "GLIBC_TUNABLES=glibc.rtld.optional_static_tls=4096"
"""
Makes glibc keep room enough for all compiled libraries that want theirs at a fixed place, in a process started with it.

By default there are some 1,600 bytes: OpenMP's, which numkong and xllamacpp bring, and kglite's do not fit in together.
"""

_CURES = {
    "static TLS block": f"other libraries have taken the room that it needs; start the process with {ROOM}",
    "version `GL": "it was built for a newer system than this one; take an older version of it, or a newer system",
    "cannot open shared object file": "a library of the system is missing; install the one that is named",
    "DLL load failed": "a library of the system is missing, as a rule the Visual C++ Redistributable; install it",
    "wrong ELF class": "it was built for another processor; install it anew with this Python's own pip",
    "incompatible architecture": "it was built for another processor; install it anew with this Python's own pip",
    "Operation not permitted": "its folder does not allow code to be run (mounted noexec?); install it elsewhere",
    "failed to map segment": "its folder does not allow code to be run (mounted noexec?); install it elsewhere",
}
"""What loaders say where a compiled library does not load, and what there is to do."""


async def load(*modules: str) -> None:
    """
    Import modules, in a thread where they are not loaded yet: a large one takes a third of a second.

    Raises:
        ModuleNotFoundError: one is missing.
        MisuseError: one is there, and cannot be loaded here; the text says what to do.

    """
    missing = [module for module in modules if module not in _loaded]
    if not missing:
        return
    loop = asyncio.get_running_loop()
    if abs(loop.time() - time.monotonic()) > 1:  # a clock of its own, which does not wait for threads
        _load(missing)
    else:
        await asyncio.to_thread(_load, missing)


def optional(module: str, use: str, install: str) -> ModuleType:
    """
    Return a library that is not everybody's, loaded.

    Args:
        module: its name.
        use: what needs it, as a sentence begins.
        install: what pip installs it with.

    Raises:
        NotInstalled: it is missing.
        MisuseError: it is there, and cannot be loaded here; the text says what to do.

    """
    try:
        return _imported(module)
    except ModuleNotFoundError as error:
        if error.name != module:  # it is there, and misses something itself
            raise
        raise NotInstalled(f"{use} needs the package {module}: pip install '{install}'", install) from None


def _load(modules: list[str]) -> None:
    for module in modules:
        _imported(module)
        _loaded.add(module)


def _imported(module: str) -> ModuleType:
    try:
        return import_module(module)
    except ModuleNotFoundError:
        raise
    except (ImportError, OSError) as error:  # the second of those that load theirs with ctypes
        told = str(error)
        package = module.partition(".")[0]
        again = f"install it anew: pip install --force-reinstall --no-cache-dir {package}"
        cure = next((cure for words, cure in _CURES.items() if words in told), again)
        raise MisuseError(f"{package} is installed and cannot be loaded: {told}; {cure}") from error

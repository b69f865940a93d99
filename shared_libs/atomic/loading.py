"""Libraries that are loaded on first use: in a thread, so that the event loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import time
from importlib import import_module

_loaded: set[str] = set()
"""What is loaded to its end: a module stands in `sys.modules` as soon as another thread has begun to load it."""


async def load(*modules: str) -> None:
    """Import modules, in a thread where they are not loaded yet: a large one takes a third of a second."""
    missing = [module for module in modules if module not in _loaded]
    if not missing:
        return
    loop = asyncio.get_running_loop()
    if abs(loop.time() - time.monotonic()) > 1:  # a clock of its own, which does not wait for threads
        _load(missing)
    else:
        await asyncio.to_thread(_load, missing)


def _load(modules: list[str]) -> None:
    for module in modules:
        import_module(module)
        _loaded.add(module)

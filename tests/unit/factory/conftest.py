"""An installed package that adds names to the registries: a real one, with entry points, on the import path."""

from __future__ import annotations

import importlib
import sys
from textwrap import dedent

import pytest

_MODULE = '''
from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from far.away import Client, Pool

from shared_libs.atomic import BaseTool, InProcessMemory, MisuseError, tool
from shared_libs.atomic.llms import ScriptedLLM


class Weather(BaseTool):
    """
    Tells the weather.

    Args:
        place: where, in plain words
            of any language.
        units, days: how it is told.

    """

    name = "weather"

    def __init__(self, place: str, *, units: Literal["metric", "imperial"] = "metric", days: int | list[int] = 3,
                 on_call: BaseTool | None = None, client: Client | None = None, pools: list[Pool[int]] = (),
                 password: str = "") -> None:
        if days == 0:
            raise MisuseError(f"no days for {place}, {password}")
        if days == 12:
            raise MisuseError("days must not be a dozen")
        if days == 13:
            raise RuntimeError(password)
        self.place = place
        self.units = units
        self.days = days

    async def execute(self, day: int) -> str:
        """Tell it."""
        return f"sun in {self.place}"


@tool
def ready(x: int) -> int:
    """A ready one."""
    return x


def made(size: int = 1) -> BaseTool:
    return Weather("made", days=size)


def twins() -> list[BaseTool]:
    left, right = Weather("left"), Weather("right")
    left.name, right.name = "left", "right"
    return [left, right]


def nothing() -> None:
    return None


class Odd(Weather):
    def __init__(self, helper: BaseTool) -> None: ...


class Fake(ScriptedLLM):
    """A model that is none."""

    provider = "fake"
    own_base_url = "https://fake"
    base_url_variable = "FAKE_URL"

    def __init__(self, model: str, *, api_key: str | None = None, base_url: str | None = None, resilience=None,
                 fallbacks=(), price=None, options=None) -> None:
        if base_url == "refused":
            raise MisuseError(f"the key {api_key} is refused")
        super().__init__(["fake"], model=model, resilience=resilience, fallbacks=fallbacks, price=price)
        self.api_key = api_key
        self.options = dict(options or {})


class StandIn(ScriptedLLM):
    provider = "standin"
    rehearsal = True

    def __init__(self, script: str = "any") -> None:
        super().__init__(["rehearsed"], model="standin")


def shelf(url: str, window: int | None = None) -> InProcessMemory:
    memory = InProcessMemory(window=window)
    memory.url = url
    return memory
'''

_ENTRY_POINTS = """
[genai_factory]
tool.weather = weather_plugin:Weather
tool.ready = weather_plugin:ready
tool.made = weather_plugin:made
tool.twins = weather_plugin:twins
tool.nothing = weather_plugin:nothing
tool.odd = weather_plugin:Odd
tool.lost = weather_lost:Lost
tool.calculator = weather_plugin:Weather
llm.fake = weather_plugin:Fake
llm.standin = weather_plugin:StandIn
memory.shelf = weather_plugin:shelf
"""


def install(folder, name, entry_points):
    """Install a distribution's metadata into a folder of the import path."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(dedent(entry_points))


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """The package `weather-plugin` is installed for the test."""
    folder = tmp_path / "site"
    install(folder, "weather-plugin", _ENTRY_POINTS)
    (folder / "weather_plugin.py").write_text(_MODULE)
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    yield folder
    sys.modules.pop("weather_plugin", None)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a definition, and return its name relative to the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(text, name="agent.yaml"):
        content = text if isinstance(text, bytes) else text.encode()
        (tmp_path / name).write_bytes(content)
        return name

    return write

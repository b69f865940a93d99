"""
The pytest plugin: scenario files are tests, and tests get agents whose ports are taken.

It is loaded into every project that has us installed, so it brings hooks and fixtures and nothing else: nothing of the
library is imported before a scenario of ours is collected or a fixture asked for. It is a module by itself, for a
project may have a folder `genai_factory` too, and a plugin in there would not be found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from shared_libs.agents import ReActAgent
    from shared_libs.atomic.llms import ScriptedLLM
    from shared_libs.testing import BackgroundFaultServer, VirtualClock
    from shared_libs.testing.faults.server import Script

SUFFIX = ".scenario.yaml"

_KEY = re.compile(rb"""(?:^|[{,])\s*["']?(scenario|agent|questions?|models)["']?\s*:""", re.MULTILINE)
_READ = 64 * 1024


@pytest.hookimpl(trylast=True)
def pytest_load_initial_conftests(parser: pytest.Parser) -> None:
    """Add the plugin's options after everybody else's: one that another plugin has too is that plugin's."""
    group = parser.getgroup("scenarios", "scenarios of agents")
    with suppress(ValueError):
        group.addoption(
            "--scenario-record", action="store_true", help="ask the real models, and renew the cassettes of scenarios"
        )
    with suppress(ValueError):
        group.addoption(
            "--scenario-seed", type=int, metavar="N", help="play scenarios with this seed and not with their own"
        )


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """
    Have pytest load us as Python does: it reads anew, for its assertions, all of whoever has a plugin.

    That were some hundred modules without an assertion, at each start of an environment that is new.
    """
    marked = getattr(pluginmanager.rewrite_hook, "_must_rewrite", None)  # pytest has no public way
    if isinstance(marked, set):
        marked -= {"genai_factory", "shared_libs"}


def pytest_configure(config: pytest.Config) -> None:
    """Name the marks."""
    config.addinivalue_line("markers", "scenario: a scenario file's test; -m 'not scenario' leaves them out")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect the `*.scenario.yaml` that are ours; other tools use the name too."""
    if not file_path.name.endswith(SUFFIX) or not _is_ours(file_path):
        return None
    collected: pytest.Collector = _ours("testing.scenarios.collecting").ScenarioFile.from_parent(parent, path=file_path)
    return collected


def _ours(module: str) -> Any:
    """A module of the library, by the one of its two names that is not a folder of the project."""
    found = find_spec("genai_factory")
    here = found is not None and found.origin is not None and Path(found.origin).parents[1] == Path(__file__).parent
    return import_module(f"{'genai_factory' if here else 'shared_libs'}.{module}")


def _is_ours(file: Path) -> bool:
    """Whether two of the keys by which scenarios are told stand in it: so one may be misspelt, which is then told."""
    try:
        with file.open("rb") as source:
            return len(set(_KEY.findall(source.read(_READ)))) > 1
    except OSError:
        return False


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """Run coroutines on virtual time: `virtual_clock.run(agent.async_run("…"))`."""
    clock: VirtualClock = _ours("testing").VirtualClock()
    return clock


@pytest.fixture
def scripted_llm() -> Iterator[Callable[..., ScriptedLLM]]:
    """Make models that follow a script, `scripted_llm(["Hello."])`; a turn that is left over fails the test."""
    model = _ours("atomic.llms").ScriptedLLM
    made: list[ScriptedLLM] = []

    def make(script: Iterable[Any], **options: Any) -> ScriptedLLM:
        made.append(model(list(script), **options))
        return made[-1]

    yield make
    for llm in made:
        llm.verify()


@pytest.fixture
def factory_agent(request: pytest.FixtureRequest) -> Iterator[Callable[..., ReActAgent]]:
    """
    Build agents whose ports are taken: `factory_agent("../agent.yaml", models={"*": ["Hello."]}, faults=[…])`.

    It takes the keys of a scenario file; a path is relative to the test's file. A script that was not followed and a
    fault that met no call fail the test.
    """
    agents = _ours("testing.scenarios.collecting").Agents(request)
    yield agents.make
    if problems := agents.finish():
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.fixture
def fault_server() -> Iterator[Callable[[Mapping[str, Script]], BackgroundFaultServer]]:
    """
    Start servers that fail as they are told.

    `server = fault_server({"gpt-5.4-mini": [RateLimited(), Cut()]})` starts one. Any client, sync or async, is aimed
    at `server.url("openai")`. They run on the real clock and are stopped at the end of the test, which fails when one
    was asked for what it has no script for.
    """
    testing = _ours("testing")
    running, problem = ExitStack(), ""
    try:
        with running:
            yield lambda models: running.enter_context(testing.BackgroundFaultServer(models))
    except testing.UnexpectedRequest as error:
        problem = str(error)
    if problem:
        pytest.fail(problem, pytrace=False)

"""The distribution as others get it: a wheel, beside projects that have a `shared_libs` of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCENARIO = "scenario: it greets\nagent: agent.yaml\nquestion: Hi.\nmodels: {'*': [Hello.]}\nexpect: {answer: Hello.}\n"
AGENT = "name: a\nllm: {provider: openai, model: m}\n"
OF_OTHERS = "scenario: login\nsteps: [{click: the button}]\n"

pytestmark = pytest.mark.xdist_group("wheel")

NOT_LANGCHAINS = {"PYTEST_ADDOPTS": "-p no:langsmith_plugin"}
"""Its plugin, which loads much, may stand beside ours: the documentation is run beside LangChain."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, unpacked; built from a copy, for building leaves its traces."""
    place = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "genai_factory_pytest.py"):
        shutil.copy(ROOT / name, place)
    for name in ("genai_factory", "shared_libs"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(place)], cwd=place, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(place.glob("*.whl"))) as packed:
        packed.extractall(place / "site")
    return place / "site"


@pytest.fixture
def project(tmp_path, wheel):
    """A folder with files in it, and what runs Python there with our wheel and nothing of this checkout."""

    def of(**files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

        def run(*arguments, code=0):
            paths = os.pathsep.join(
                [str(wheel), *dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))]
            )
            done = subprocess.run(
                [sys.executable, "-S", *arguments],  # -S: no .pth, whose editable finders would hide what is missing
                cwd=tmp_path,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": paths, "PYTHONUTF8": "1", **NOT_LANGCHAINS},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == code, done.stdout + done.stderr
            return done.stdout + done.stderr

        return run

    return of


THEIRS = {
    "without one": {"shared_libs/db.py": "URL = 'theirs'\n"},
    "with names like ours": {
        "shared_libs/__init__.py": "",
        "shared_libs/db.py": "from shared_libs.tools import URL\n",
        "shared_libs/tools.py": "URL = 'theirs'\n",
    },
    "without one, with names like ours": {
        "shared_libs/db.py": "from shared_libs.tools.urls import URL\n",
        "shared_libs/tools/urls.py": "URL = 'theirs'\n",
    },
}
TEST = """
import sys

import pytest

from shared_libs import db


def test_theirs():
    assert db.URL == "theirs"


def test_ours(factory_agent, virtual_clock):
    agent = factory_agent("agent.yaml", models={"*": ["Hello."]})
    assert virtual_clock.run(agent.async_run("Hi.")).answer == "Hello."
    ours = [module for name, module in sys.modules.items() if name.startswith("genai_factory.")]
    assert not [module for module in ours if "Rewriting" in type(module.__spec__.loader).__name__]
"""
APP = """
import asyncio
from shared_libs import db
from genai_factory.agents import ReActAgent
from genai_factory.atomic.llms import ScriptedLLM
from genai_factory.factory import load_agent

agent = load_agent("agent.yaml", llm=ScriptedLLM(["Hello."]))
assert isinstance(agent, ReActAgent)
print(db.URL, asyncio.run(agent.async_run("Hi.")).answer)
"""


@pytest.mark.promise("no-harm")
@pytest.mark.parametrize("files", THEIRS.values(), ids=THEIRS)
def test_a_project_with_a_shared_libs_of_its_own_is_left_alone_and_can_use_us(project, files):
    run = project(
        **files,
        **{"agent.yaml": AGENT, "app.py": APP, "tests/test_a.py": TEST, "tests/agent.yaml": AGENT},
        **{"a.scenario.yaml": SCENARIO, "theirs.scenario.yaml": OF_OTHERS},
    )
    assert "3 passed" in run("-m", "pytest", "-p", "no:cacheprovider")
    assert run("app.py") == "theirs Hello.\n"
    assert "agent.yaml: ok" in run("-m", "genai_factory.cli", "check", "agent.yaml")


@pytest.mark.promise("no-harm")
def test_a_project_with_a_genai_factory_of_its_own_is_left_alone_and_has_our_fixtures(project):
    test = TEST.replace("shared_libs", "genai_factory").split("    ours = ")[0]
    files = {"genai_factory/__init__.py": "", "genai_factory/db.py": "URL = 'theirs'\n", "test_a.py": test}
    run = project(**files, **{"agent.yaml": AGENT, "a.scenario.yaml": SCENARIO})
    assert "3 passed" in run("-m", "pytest", "-p", "no:cacheprovider")


@pytest.mark.promise("no-harm")
def test_a_folder_put_on_the_path_by_pytest_itself_is_found(project):
    run = project(
        **{"pytest.ini": "[pytest]\npythonpath = src\n", "src/shared_libs/__init__.py": "URL = 'theirs'\n"},
        **{"test_a.py": "import shared_libs\n\ndef test_a():\n    assert shared_libs.URL == 'theirs'\n"},
    )
    start = "import sys; sys.path.remove(''); import pytest; sys.exit(pytest.main(['-p', 'no:cacheprovider']))"
    assert "1 passed" in run("-c", start)


@pytest.mark.promise("no-harm")
def test_the_plugin_needs_nothing_of_ours_and_yields_to_other_plugins(project):
    run = project(
        **{
            "blocked/pydantic.py": "raise ImportError('not here')",
            "blocked/msgspec.py": "raise ImportError('not here')",
            "other.py": (
                "def pytest_addoption(parser):\n"
                "    parser.addoption('--scenario-seed', default='theirs')\n"
                "    parser.addoption('--scenario-record', default='theirs')\n"
            ),
            "theirs.scenario.yaml": OF_OTHERS,
            "empty.scenario.yaml": "",
            "test_a.py": (
                "import sys\n\n\ndef test_a(pytestconfig):\n"
                "    assert pytestconfig.getoption('scenario_seed') == 'theirs'\n"
                "    assert not {'shared_libs', 'genai_factory.atomic', 'pydantic'} & set(sys.modules)\n"
            ),
        }
    )
    start = "import sys; sys.path.insert(1, 'blocked'); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    assert "1 passed" in run("-c", start, "-p", "other", "-p", "no:cacheprovider", "-W", "error")


@pytest.mark.promise("two-names")
def test_every_module_is_the_same_under_both_names(project):
    code = """
import importlib, pkgutil, shared_libs, genai_factory
names = [found.name for found in pkgutil.walk_packages(shared_libs.__path__, "shared_libs.")]
names = [name for name in names if not name.endswith("__main__") and ".versions." not in name]
for turn, name in enumerate(names):
    other = name.replace("shared_libs", "genai_factory", 1)
    one, two = (importlib.import_module(each) for each in ((name, other) if turn % 2 else (other, name)))
    assert one is two, name
    assert one.__name__ == one.__spec__.name == name, one.__spec__
assert len(names) > 150
"""
    assert project()("-W", "error", "-c", code) == ""


def test_a_checkout_says_why_it_cannot_stand_beside_another_shared_libs(tmp_path):
    (tmp_path / "shared_libs").mkdir()
    (tmp_path / "shared_libs" / "__init__.py").touch()
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import genai_factory.agents"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "another package is called shared_libs here" in done.stderr
    assert "install it as a wheel" in done.stderr


def test_a_name_that_is_not_there_is_told_under_the_name_it_was_asked_for(project):
    assert "No module named 'genai_factory.agent'" in project()("-c", "import genai_factory.agent", code=1)


def test_the_wheel_has_what_it_needs(wheel):
    for name in ("shared_libs", "genai_factory"):
        for file in (
            "py.typed",
            "factory/prices.yaml",
            "observability/timeline.html",
            "observability/page/trace.js",
            "atomic/llms/rehearsals/hello.json",
        ):
            assert (wheel / name / file).is_file(), f"{name}/{file}"
    points = (next(wheel.glob("*.dist-info")) / "entry_points.txt").read_text()
    assert "factory = genai_factory.command:main" in points
    assert "genai_factory = genai_factory_pytest" in points

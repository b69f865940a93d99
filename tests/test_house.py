"""The rules of the house: floors, sizes, imports, promises, and what the public sees."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

from shared_libs.cli.examining import EXTRAS
from tests.requirements import REQUIREMENTS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "shared_libs"
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
HEAVY = {
    *("aiohttp", "aiosqlite", "alembic", "anthropic", "asyncpg", "httpx", "httpx2", "jsonschema", "numpy", "openai"),
    *("pandas", "pydantic", "rich", "sqlalchemy", "structlog", "yaml"),
}

MUTABLE = {
    "atomic/alarm.py: _clocks": "the one timer of each loop, there while something waits for it",
    "atomic/loading.py: _loaded": "which modules are loaded to their end",
    "atomic/forks.py: _all": "the hooks of a fork are the process's; it holds everything weakly",
    "atomic/llms/dialect.py: _known": "what was learnt of a server is the process's, and bounded",
    "atomic/propagation.py: _carriers": "a tracer is the process's, as its providers are",
    "atomic/rescue.py: _doors": "which of our functions are doors is known as their modules are loaded",
    "atomic/resilience/health.py: _known": "what the process knows of its models is kept per process, by contract",
}
"""State that lives in a module, with the reason why it may."""

CONTAINERS = {
    *("dict", "list", "set", "bytearray", "defaultdict", "deque", "Counter", "OrderedDict"),
    *("WeakKeyDictionary", "WeakSet", "WeakValueDictionary", "count", "cycle", "local"),
}


# one process reads the modules, once for all the rules that are about what stands in them
pytestmark = pytest.mark.xdist_group("house")


@cache
def parsed(module):
    return ast.parse(module.read_text())


def lint(folder):
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_imports_only_point_down():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


def test_no_module_imports_itself_by_way_of_others():
    # but for annotations: a call of the service names the service that is made of what takes calls
    cache = str(ROOT / ".import_linter_cache")
    graph = grimp.build_graph("shared_libs", cache_dir=cache, exclude_type_checking_imports=True)
    TopologicalSorter({name: graph.find_modules_directly_imported_by(name) for name in graph.modules}).prepare()


def test_planted_violations_are_caught(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "shared_libs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    wrong = {
        "atomic.types": "agents",
        "atomic.errors": "atomic.llms.base",
        "tools.calculator": "memory",
        "atomic.llms.scripted_llm": "atomic.llms.openai_llm",
    }
    for module, other in wrong.items():
        planted = tmp_path / "shared_libs" / f"{module.replace('.', '/')}.py"
        planted.write_text(f"{planted.read_text()}\nimport shared_libs.{other}\n")
    done = lint(tmp_path)
    assert done.returncode == 1, done.stdout
    for module, other in wrong.items():
        assert re.search(rf"shared_libs\.{module} ->\s+shared_libs\.{other}\s+\(l", done.stdout), (module, done.stdout)


def test_modules_functions_and_constructors_are_small():
    assert [told for module in MODULES for told in too_large(module)] == []


def too_large(module):
    name = module.relative_to(PACKAGE)
    if len(module.read_text().splitlines()) > 500:
        yield f"{name} is too long"
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.end_lineno - node.lineno >= 60 + _docstring_lines(node):
                yield f"{name}: {node.name} is too long"
            positional = [*node.args.posonlyargs, *node.args.args]
            if node.name == "__init__" and max(len(positional) - 1, len(node.args.kwonlyargs)) > 8:
                yield f"{name}: a constructor has too many parameters"


def _docstring_lines(node):
    return len((ast.get_docstring(node, clean=False) or "").splitlines())


def test_the_loop_is_read_in_ten_minutes():
    lines = [len((PACKAGE / "agents" / name).read_text().splitlines()) for name in ("step.py", "react_agent.py")]
    assert sum(lines) < 500


def test_heavy_libraries_load_on_first_use():
    """One process begins all of them: what the first does not load the last does not find loaded."""
    begun = """
import json, sys
import shared_libs.atomic, shared_libs.agents, shared_libs.factory
from shared_libs.atomic.llms import OpenAILLM
from shared_libs.cli import main
try:
    main(['--help'])
except SystemExit:
    pass
print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", begun], capture_output=True, text=True, timeout=60, check=True)
    assert not HEAVY & set(json.loads(done.stderr))


def test_nothing_unsafe_is_called():
    forbidden = {"eval", "exec", "compile", "__import__"}
    for module in MODULES:
        for node in ast.walk(parsed(module)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in forbidden, f"{module}: {node.func.id}()"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None)]
                assert not {"pickle", "marshal", "shelve"} & set(names), f"{module}: {names}"


def test_nothing_that_changes_lives_in_a_module():
    found = {f"{module.relative_to(PACKAGE).as_posix()}: {name}" for module in MODULES for name in module_state(module)}
    assert found == set(MUTABLE)


def module_state(module):
    """Give the names a module may change while it runs: containers not in capitals, empty ones, and `global`."""
    tree = parsed(module)
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield from node.names
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            name = target.id if isinstance(target, ast.Name) else ""
            value = getattr(node, "value", None)
            if name and not name.startswith("__") and _is_container(value) and not (name.isupper() and _filled(value)):
                yield name


def _is_container(value):
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).split(".")[-1] in CONTAINERS
    return isinstance(value, ast.Dict | ast.List | ast.Set | ast.DictComp | ast.ListComp | ast.SetComp)


def _filled(value):
    return bool(getattr(value, "keys", None) or getattr(value, "elts", None) or getattr(value, "generators", None))


@pytest.mark.parametrize(
    "line", ["_seen = {}", "CACHE = {}", "found: list[str] = []", "_ids = itertools.count()", "_table = {1: 2}"]
)
def test_state_planted_in_a_module_is_found(tmp_path, line):
    planted = tmp_path / "planted.py"
    planted.write_text(f"{line}\nTABLE = {{1: 2}}\n")
    assert len(list(module_state(planted))) == 1


def test_tests_prove_every_promise_and_neither_sleep_nor_patch_us():
    cited, wrong = set(), []
    for file in TESTS:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {*(alias.name for alias in node.names), getattr(node, "module", None)}
                wrong += [f"{file}: {name}" for name in {"mock", "unittest.mock"} & names]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = node.func.attr
                if called == "promise" and ast.unparse(node.func) == "pytest.mark.promise":
                    cited |= {ast.literal_eval(argument) for argument in node.args}
                slept = called == "sleep" and ast.unparse(node.func) == "time.sleep"
                if slept or (called == "setattr" and re.match(r"\w+\.setattr\(['\"]?shared_libs", ast.unparse(node))):
                    wrong.append(f"{file}: {ast.unparse(node)}")
    assert cited == set(REQUIREMENTS)
    assert wrong == []


def test_roles_and_databases_of_tests_have_names_of_their_own():
    """One server is shared by all files of a process, and these names stand in none of its databases."""
    named = re.compile(r"(?i)\bcreate (?:role|user|database) (?![{\[(:|])\w")
    assert {str(file): found for file in TESTS if (found := named.findall(file.read_text()))} == {}


def test_no_path_of_a_machine_and_no_package_index_is_named():
    slip = re.compile(r"/(?:w[o]rk|r[o]ot|h[o]me|U[s]ers|o[p]t)/|p[y]pi\.org|python[h]osted|index-[u]rl")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = listed.stdout.split("\0")[:-1] or [str(path.relative_to(ROOT)) for path in [*MODULES, *TESTS]]
    found = {name: slip.findall((ROOT / name).read_text()) for name in names if (ROOT / name).is_file()}
    assert {name: slips for name, slips in found.items() if slips} == {}


@pytest.mark.promise("two-names")
def test_what_the_packages_export_has_types_under_both_names():
    for package in sorted((ROOT / "shared_libs").rglob("__init__.py")):
        inner = package.parent.relative_to(ROOT / "shared_libs")
        if inner.parts and "__all__" in package.read_text():
            stub = ROOT / "genai_factory" / inner / "__init__.pyi"
            line = f"from shared_libs.{'.'.join(inner.parts)} import *\n"
            found = stub.read_text() if stub.is_file() else ""
            assert found == line, f"write `{line.strip()}` to {stub.relative_to(ROOT)}"


def extras_for_users():
    """Name the extras but those that hold others, or are for this project itself."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return extras.keys() - {"all", "dev", "docs"}


def test_all_is_every_extra_a_user_may_want_and_has_no_linters():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    inside = (entry.removeprefix("genai-factory[").removesuffix("]") for entry in extras["all"])
    assert {name for names in inside for name in names.split(",")} == extras_for_users()
    assert "genai-factory[all]" in extras["dev"]
    assert set(EXTRAS) == extras_for_users(), "`factory doctor` says what each brings"


def surface():
    """List what the public may rely on: what every package exports, with the signatures and the public members."""
    import shared_libs

    lines, told = [], {}
    for found in pkgutil.walk_packages(shared_libs.__path__, "shared_libs."):
        home = importlib.import_module(found.name) if found.ispkg else None
        for name in sorted(getattr(home, "__all__", ())):
            thing, path = getattr(home, name), f"{found.name}.{name}"
            if id(thing) in told:
                lines.append(f"{path} = {told[id(thing)]}")
                continue
            told[id(thing)] = path
            lines.append(_told(path, thing))
            if inspect.isclass(thing):
                lines += _members(thing)
    return "\n".join(lines) + "\n"


def _members(kind):
    """List public methods, and the attributes that the constructor does not name already."""
    given = _signature(kind)
    for name, declared in sorted(inspect.get_annotations(kind).items()):
        if not name.startswith("_") and f"{name}: " not in given:
            yield f"    .{name}: {declared if isinstance(declared, str) else inspect.formatannotation(declared)}"
    for name, value in sorted(vars(kind).items()):
        if not name.startswith("_") and (callable(value) or isinstance(value, property | classmethod | staticmethod)):
            yield "    " + _told(f".{name}", getattr(kind, name))


def _told(path, thing):
    return f"{'async ' if inspect.iscoroutinefunction(thing) else ''}{path}{_signature(thing)}"


def _signature(thing):
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return ""  # 3.13 has a signature for an alias as well
    try:
        text = str(inspect.signature(thing))
    except (TypeError, ValueError):
        return ""
    text = re.sub(r"<bound method (\S+) of <.*?>>", r"\1", text)  # its text holds the level of the logger
    text = text.replace("typing.", "")  # 3.14 leaves it out, as it does some of the quotes
    text = re.sub(r"ForwardRef\((.*?)\)", r"\1", text)
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)


def test_the_public_surface_changes_on_purpose():
    pinned = ROOT / "tests" / "public_surface.txt"
    command = "python -c 'from tests.test_house import surface; print(surface(), end=\"\")' > tests/public_surface.txt"
    assert surface() == pinned.read_text(), f"if this is meant: {command}"

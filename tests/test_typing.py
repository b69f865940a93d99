"""Programs of users before the type checkers: what is right passes, what is wrong is told where it stands."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAMS = ROOT / "tests" / "typing"


def run(*command):
    # their answer is read, whatever their exit code: it is 1 where there are errors
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False).stdout


def mypy():
    """Strict by pyproject.toml, as the library itself is checked."""
    said = run(sys.executable, "-m", "mypy", *map(str, sorted(PROGRAMS.glob("*.py"))))
    return [(Path(file).name, int(line)) for file, line in re.findall(r"^(.+?):(\d+): error:", said, re.MULTILINE)]


def pyright(folder):
    settings = {"include": ["programs"], "typeCheckingMode": "strict", "extraPaths": [str(ROOT)]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    (folder / "programs").symlink_to(PROGRAMS)
    said = run(
        *(sys.executable, "-m", "pyright", "--outputjson", "--project", str(folder), "--pythonpath", sys.executable)
    )
    found = json.loads(said)["generalDiagnostics"]
    return [
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1) for one in found if one["severity"] != "information"
    ]


@pytest.mark.promise("typed")
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_checkers_take_what_is_right_and_find_what_is_wrong(checker, tmp_path):
    wrong = {
        (path.name, number)
        for path in PROGRAMS.glob("wrong*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if line.endswith("# wrong")
    }
    assert len(wrong) >= 60
    assert set(mypy() if checker == "mypy" else pyright(tmp_path)) == wrong

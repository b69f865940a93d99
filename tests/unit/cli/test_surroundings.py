"""Where `factory` is started, and what lies about there: folders, homes, `.env` files and stores as users have them."""

from __future__ import annotations

import io
import os
import sqlite3
import subprocess
import sys
import threading

import pytest
from dotenv import dotenv_values

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.events import ToolFinished, ToolStarted
from shared_libs.atomic.places import cache_folder, data_folder
from shared_libs.cli import main
from shared_libs.cli.environment import read_env_files
from shared_libs.cli.live import LiveView

QUESTION = "What is 17 * 23?"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Begin in a folder with the agent of `factory init`, without a key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert main(["init"]) == 0
    return tmp_path


def in_a_process(script, *, cwd):
    """Play it where the working directory is another's to take away."""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout, done.stderr


GONE = """
import os, sys
os.rmdir(os.getcwd())
from genai_factory.cli import main
sys.exit(main(sys.argv[1:] or {words!r}))
"""


@pytest.mark.skipif(
    sys.version_info[:3] == (3, 13, 0),
    reason="CPython 3.13.0 cannot import asyncio in such a folder (SystemError)",
)
@pytest.mark.parametrize(
    ("words", "code"), [(["doctor"], 0), (["check", "."], 2), (["init"], 2), (["init", "x"], 2), (["scenario", "."], 2)]
)
def test_a_working_directory_that_is_gone_is_no_traceback(tmp_path, words, code):
    (tmp_path / "gone").mkdir()
    told, _, err = in_a_process(GONE.format(words=words), cwd=tmp_path / "gone")
    assert (told, "Traceback" in err) == (code, False), err


@pytest.mark.parametrize("home", ["", "relative", "~nobody"])
def test_who_has_no_home_is_answered_and_told_that_the_run_is_not_kept(here, monkeypatch, capsys, home):
    """A user of a container often has neither; an empty one is none, and not the working directory."""
    monkeypatch.delenv("FACTORY_RUNS", raising=False)
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("XDG_DATA_HOME", "relative too")  # which the specification says to ignore
    assert main(["run", "agent.yaml", QUESTION]) == 0
    out, err = capsys.readouterr()
    assert "391" in out
    assert "this run is not kept: this user has no home folder; set FACTORY_RUNS to an address (or to off)" in err
    assert sorted(path.name for path in here.iterdir()) == [".env", "agent.scenario.yaml", "agent.yaml"]
    for words in (["runs"], ["submit", "agent.yaml", "Hi."], ["tables"]):
        assert main(words) == 2
        assert "this user has no home folder; set FACTORY_RUNS" in capsys.readouterr().err


def test_doctor_says_what_a_user_without_a_home_can_set(here, monkeypatch, capsys):
    for name in ("FACTORY_RUNS", "FACTORY_CACHE_DIR", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "")
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "--  cache " in out
    assert "set FACTORY_CACHE_DIR to a folder, or HOME" in out
    assert "set FACTORY_RUNS to an address (or to off), or HOME" in out


def test_the_folders_of_the_user(monkeypatch):
    monkeypatch.setenv("HOME", "/somebody")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert str(data_folder("X")) == "/data/genai-factory"
    assert str(cache_folder("X")) == "/somebody/.cache/genai-factory"
    monkeypatch.setenv("HOME", "here")
    with pytest.raises(MisuseError, match="set X, or HOME"):
        cache_folder("X")


NUL = "it holds NUL, as text in UTF-16 does; save it as UTF-8"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("FACTORY_RUNS=off\n".encode("utf-16-le"), NUL),
        (b"A=x\0y\n", NUL),
        (b"A\0B=1\n", NUL),
        (b"A=x" + b" " * 200_000 + b"y", "it holds 200 spaces in a row"),
        (b"B=1\nA='" + b"${a\n" * 100_000 + b"'", "line 2 has over 100 ${…}"),
    ],
    ids=["utf-16", "value", "name", "spaces", "references"],
)
def test_an_env_file_that_nobody_wrote_by_hand_is_told_and_not_worked_on(here, capsys, text, told):
    """The last two took python-dotenv minutes and hours: the square of their length."""
    (here / ".env").write_bytes(text)
    assert main(["run", "agent.yaml", QUESTION]) == 2
    assert capsys.readouterr().err == f".env cannot be read: {told}\n"


def test_an_env_file_may_be_a_pipe_as_keepers_of_secrets_make_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OUT_OF_THE_PIPE", raising=False)
    os.mkfifo(".env")
    keeper = threading.Thread(target=(tmp_path / ".env").write_text, args=("OUT_OF_THE_PIPE=1\n",))
    keeper.start()
    read_env_files(None)
    keeper.join()
    assert os.environ.pop("OUT_OF_THE_PIPE") == "1"


@pytest.mark.parametrize("folder", ["agent.yaml", "dangling"])
def test_init_into_what_is_no_folder(here, capsys, folder):
    (here / "dangling").symlink_to("nowhere")
    assert main(["init", folder]) == 2
    assert capsys.readouterr().err == f"{folder} is no folder; name one, which is made if need be\n"


def test_init_with_a_name_that_no_folder_can_have(here, capsys):
    assert main(["init", "a" * 300]) == 2
    assert "cannot be written: File name too long" in capsys.readouterr().err


FULL = """
import os, resource, sys
sys.dont_write_bytecode = True  # which would be cut off, too, and stay so
from genai_factory.cli import main, starting
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
code = main(["init"])
print(os.listdir())
sys.exit(code)
"""


def test_init_on_a_full_disk_leaves_nothing_behind(tmp_path):
    code, out, err = in_a_process(FULL, cwd=tmp_path)
    assert (code, out, err) == (2, "[]\n", "agent.yaml cannot be written: File too large\n")


def test_the_command_that_init_shows_is_right_for_a_folder_that_looks_like_an_option(here, capsys):
    capsys.readouterr()
    assert main(["init", "--", "-x"]) == 0
    assert 'factory run ./-x/agent.yaml "What' in capsys.readouterr().out


@pytest.mark.parametrize("when", ["99999999999d", "9" * 5000 + "d", "0000-01-01"])
def test_a_moment_that_no_calendar_has_is_told(here, capsys, when):
    with pytest.raises(SystemExit) as caught:
        main(["runs", "--since", when])
    assert caught.value.code == 2
    assert "a moment is 30m, 2h, 7d" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["runs"], ["runs", "last"], ["trace", "last"]])
def test_a_store_whose_rows_are_damaged_is_told(here, monkeypatch, capsys, command):
    monkeypatch.setenv("FACTORY_RUNS", "sqlite:///runs.db")
    assert main(["run", "agent.yaml", QUESTION]) == 0
    with sqlite3.connect("runs.db") as connection:
        connection.execute("UPDATE factory_runs SET parts = '[{'")
        connection.execute("UPDATE factory_run_events SET event = '{x'")
    connection.close()
    capsys.readouterr()
    assert main(command) == 1
    assert "factory: what the store of runs holds is damaged: " in capsys.readouterr().err


def test_on_a_terminal_of_twenty_columns_the_words_of_a_run_are_there(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    shown = io.StringIO()
    view = LiveView(shown)
    view(ToolStarted(step=1, tool="calculator", input={"expression": "17 * 23"}, call_id="c1", at_s=0.5))
    view(ToolFinished(1, "calculator", "c1", "391", is_error=False, elapsed_s=0.01, at_s=0.6))
    assert (
        " ".join(shown.getvalue().split())
        == "0.50 s action calculator 17 * 23 0.60 s observation 391 (calculator, 0.01 s)"
    )


def test_on_a_narrow_terminal_doctor_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "--  provider openai" in out
    assert "export OPENAI_API_KEY=…" in out


class Environment(dict):
    """One that counts how often all of it is read."""

    read = 0

    def __iter__(self):
        self.read += 1
        return super().__iter__()

    def keys(self):
        self.read += 1
        return super().keys()


def test_a_long_env_file_copies_the_environment_for_none_of_its_lines(tmp_path, monkeypatch):
    """20,000 lines took more than 20 s: python-dotenv copies all that is set already for each value."""
    monkeypatch.chdir(tmp_path)
    lines = ["A=1", "B='${A}${OTHER_1}'", 'C="${NONE:-${A}"', "A=${A}2", "OTHER_2=mine", "D=${OTHER_2}", "E", "F=${E}"]
    (tmp_path / ".env").write_text("\n".join([*lines, *(f"K{number}=v" for number in range(100))]))
    found = Environment(os.environ | {f"OTHER_{number}": "x" for number in range(3)})
    monkeypatch.setattr(os, "environ", found)
    read_env_files(None)
    assert found.read < 10
    wanted = dotenv_values(tmp_path / ".env")
    assert found.read > 100
    assert {name: found[name] for name in "ABCDF"} == {name: wanted[name] for name in "ABCDF"}
    assert (found["OTHER_2"], found["K99"], "E" in found) == ("x", "v", False)

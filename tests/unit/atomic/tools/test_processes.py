"""Tools in a process of their own: whatever they do there, the call ends in time and nothing of it is left."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import BaseTool, Deadline, MisuseError
from shared_libs.atomic import tool as as_tool
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.atomic.scope import Scope, use_scope
from shared_libs.atomic.tools.placement import Placement
from shared_libs.atomic.tools.processes import Workers
from shared_libs.testing.clock import real_time
from tests.support import run, run_virtual
from tests.unit.atomic.tools import isolated

ROOT = Path(__file__).parents[4]
WAIT_S = 20


def call(tool, *calls, **options):
    """Make calls one after the other, and close."""

    async def main():
        try:
            return [await tool.async_run(arguments, **options) for arguments in calls or [{}]]
        finally:
            await tool.aclose()

    return run(main())


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def pids_of(ready, count=1):
    """Wait until `count` processes have written their numbers."""
    async with asyncio.timeout(WAIT_S):
        while True:
            lines = await asyncio.to_thread(lambda: ready.read_text().splitlines() if ready.exists() else [])
            if len(lines) == count:
                return [int(line) for line in lines]
            await asyncio.sleep(0.005)


def test_a_call_runs_in_a_warm_process_with_its_scope():
    scope = Scope(run_id="r", step=3)
    with use_scope(scope):
        found = [json.loads(result.content) for result in call(isolated.who, {}, {}, call_id="c")]
    assert found[0] == found[1] | {"pid": found[0]["pid"]}
    assert found[0]["pid"] == found[1]["pid"] != os.getpid()
    assert found[0]["call"] == ["r", 3, "c"]
    assert not is_alive(found[0]["pid"])


def test_arguments_are_checked_here_and_typed_there():
    right, wrong = call(isolated.later, {"day": "2013-01-02T03:04:05Z"}, {"day": "soon"})
    assert json.loads(right.content) == {"day": "2013-01-02", "type": "datetime"}
    assert wrong.is_error
    assert wrong.content.startswith("Invalid arguments for later: day:")
    assert isolated.double(3) == 6


def test_a_tool_of_a_class_is_made_again_from_its_arguments():
    assert call(isolated.Greeter("Hello", marks=2), {"who": "you"})[0].content == "you: Hello 2"


def test_the_deadline_is_known_there():
    async def main():
        with use_scope(Scope(Deadline.after(25))):
            return await isolated.time_left.async_run({})

    left_s = float(run(main()).content)
    assert 0 < left_s <= 25
    run(isolated.time_left.aclose())


def test_what_is_printed_harms_nothing(capfd):
    assert call(isolated.noisy)[0].content == "told"
    out, err = capfd.readouterr()
    assert out == ""
    assert {"from Python", "from below"} <= set(err.splitlines())


def test_an_error_and_a_long_result_are_told_as_ever():
    refused = call(isolated.refuse)[0]
    assert (refused.content, refused.is_error) == ("not like this", True)
    cut = as_tool(isolation="process", max_observation_chars=10)(isolated.long_text.execute)
    assert call(cut)[0].content == "x" * 10 + "\n[cut: 990 of 1000 characters are not shown]"


@pytest.mark.promise("time-process")
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("exit", "the process of end ended with exit code 3 before it answered"),
        ("quiet", "the process of end ended with exit code 0 before it answered"),
        ("segfault", "the process of end died of SIGSEGV before it answered"),
        ("kill", "the process of end died of SIGKILL before it answered, perhaps because the machine is out of memory"),
        ("sys.exit", "SystemExit: 4"),
    ],
)
def test_a_process_that_dies_is_an_observation(how, words):
    died, again = call(isolated.end, {"how": how}, {"how": how})
    assert (died.content, died.is_error, died.still_running) == (words, True, False)
    assert again.content == words


@pytest.mark.promise("time-process")
@pytest.mark.parametrize("what", ["00000002" + "ffff", "ffffffff" + "00" * 8, "00000004" + "6e756c6c"])
def test_a_worker_that_says_what_is_no_answer_is_ended_and_the_next_call_has_another(what):
    first, second = call(isolated.write_to_our_socket, {"what": what}, {"what": ""})
    assert first.is_error
    assert "before it answered" in first.content
    assert second.content == "done"


def test_a_run_goes_on_after_a_tool_has_crashed():
    model = ScriptedLLM([Turn(calls=[("end", {"how": "segfault"}), ("double", {"n": 4})]), "done"])

    async def main():
        async with ReActAgent(llm=model, tools=[isolated.end, isolated.double]) as agent:
            return await agent.async_run("go")

    result = run(main())
    assert (result.status, result.answer, result.still_running) == ("answered", "done", ())
    died, doubled = result.steps[0].observations
    assert (died.content, died.is_error) == ("the process of end died of SIGSEGV before it answered", True)
    assert (doubled.content, doubled.is_error) == ("8", False)


@pytest.mark.promise("time-process")
def test_memory_is_bounded_and_the_process_goes_on():
    calls = {"megabytes": 100}, {"megabytes": 400}, {"megabytes": 100, "threads": 3}  # each costs no 64 MB of itself
    fits, too_much, again = call(isolated.fill, *calls)
    assert (fits.content, again.content) == (str(100 << 20), str(100 << 20))
    assert (too_much.content, too_much.is_error) == ("fill ran out of memory; one call may use 200 MB", True)


@pytest.mark.promise("time-process")
def test_cpu_time_is_bounded():
    words = "the process of burn was ended: it used more than its 1 s of CPU time"
    assert call(isolated.burn)[0].content == words


@pytest.mark.promise("time-process")
@pytest.mark.parametrize(("tool", "count"), [(isolated.spin, 1), (isolated.absorb, 1), (isolated.family, 3)])
def test_a_call_given_up_leaves_no_process(tool, count, tmp_path):
    async def main():
        task = asyncio.create_task(tool.async_run({"ready": str(tmp_path / "ready")}))
        pids = await pids_of(tmp_path / "ready", count)
        alive = [is_alive(pid) for pid in pids]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await tool.aclose()
        while len(tool._placement.workers.threads):  # noqa: ASYNC110 - a thread cannot set an event of the loop
            await asyncio.sleep(0.001)
        return alive, [is_alive(pid) for pid in pids]

    assert run(main()) == ([True] * count, [False] * count)


@pytest.mark.promise("time-process")
def test_a_limit_ends_native_code_that_holds_the_interpreter(tmp_path):
    spin = as_tool(isolation="process", timeout_s=1000)(isolated.spin.execute)

    async def main():
        with real_time():
            task = asyncio.create_task(spin.async_run({"ready": str(tmp_path / "ready")}))
            (pid,) = await pids_of(tmp_path / "ready")
            asyncio.get_running_loop().pass_by(1000)  # it spins: now its time is over
            result = await task
            async with asyncio.timeout(WAIT_S):
                while is_alive(pid):  # noqa: ASYNC110 - a process cannot set an event of the loop
                    await asyncio.sleep(0.005)
            await spin.aclose()
        return result.content, result.is_error

    assert run_virtual(main()) == ("spin did not finish within its 1000 s", True)


def test_a_process_that_a_finished_call_left_is_ended():
    async def main():
        left = int((await isolated.leave_one_behind.async_run({})).content)
        await isolated.leave_one_behind.aclose()
        return left

    assert not is_alive(run(main()))


def test_calls_over_the_bound_wait_their_turn_and_can_be_given_up(tmp_path):
    async def main():
        tool = as_tool(isolation="process")(isolated.spin.execute)
        _ = tool.spec
        tool._placement = Placement("process", workers=Workers("spin", tool._plan(), limit=1))
        first = asyncio.create_task(tool.async_run({"ready": str(tmp_path / "first")}))
        await pids_of(tmp_path / "first")
        second = asyncio.create_task(tool.async_run({"ready": str(tmp_path / "second")}))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        first.cancel()
        await asyncio.wait([first])
        await tool.aclose()
        return (tmp_path / "second").exists()

    assert run(main()) is False


def at_a_prompt():
    return 1


def made(function):
    return as_tool(isolation="process", name="t")(function)


def test_what_cannot_be_made_again_is_refused_where_it_is_declared():
    def local() -> None: ...

    class Local(BaseTool):
        name = "t"
        isolation = "process"

        def execute(self) -> None: ...

    for tool in (made(local), made(lambda: 1), Local()):
        with pytest.raises(MisuseError, match="is not there: define it at the top"):
            _ = tool.spec
    with pytest.raises(MisuseError, match="argument marks is a set"):
        _ = isolated.Greeter("x", marks={1}).spec
    with pytest.raises(MisuseError, match="argument 1 is a tuple"):
        _ = isolated.Greeter(("x",)).spec
    with pytest.raises(MisuseError, match="a constructor that the class itself writes"):
        _ = isolated.Dated(day=2).spec
    with pytest.raises(MisuseError, match="need isolation 'process'"):
        _ = as_tool(memory_limit_mb=3)(at_a_prompt).spec


SCRIPT = """
import asyncio
from shared_libs.atomic import tool

@tool(isolation="process")
def where() -> str:
    return __name__

async def main():
    print((await where.async_run({})).content)

GUARD
    asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("guard", "out"),
    [
        ('if __name__ == "__main__":', "__factory_main__\n"),
        ("if True:", "call it under `if __name__ == '__main__':`"),
    ],
)
def test_a_tool_of_a_script_works_where_the_script_guards_its_program(tmp_path, guard, out):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("GUARD", guard))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    assert out in done.stdout, done.stderr
    assert "where was called" not in done.stderr
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


def test_the_worker_ends_with_a_program_that_is_killed(tmp_path):
    ready = tmp_path / "ready"
    program = (
        "import asyncio, sys; from tests.unit.atomic.tools.isolated import family; "
        "asyncio.run(family.async_run({'ready': sys.argv[1]}))"
    )
    process = subprocess.Popen([sys.executable, "-c", program, ready], cwd=ROOT)

    async def main():
        pids = await pids_of(ready, 3)
        process.kill()
        process.wait()
        async with asyncio.timeout(WAIT_S):
            while any(is_alive(pid) for pid in pids):  # noqa: ASYNC110 - a death sets no event
                await asyncio.sleep(0.005)

    asyncio.run(main())

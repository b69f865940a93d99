"""`factory submit` and `factory worker` as a user has them: real processes, a real store, real signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from functools import partial

import aiohttp
import pytest

from shared_libs.atomic import MisuseError, tool
from shared_libs.atomic.errors import ConfigError
from shared_libs.cli import main
from shared_libs.durable import JobStore
from shared_libs.durable.holding import Holder
from shared_libs.factory import load_agent
from shared_libs.factory.durability import submission
from shared_libs.observability.run_store import RunStore
from tests.unit.durable.cast import agent, by_length, ended, submit, turn, until, working

DEFINITION = """\
name: hello
llm: {provider: rehearsal, script: hello}
tools: [calculator]
durable: {concurrency: 3, priority: 2}
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("FACTORY_RUNS", f"sqlite:///{tmp_path}/runs.db")
    (tmp_path / "hello.yaml").write_text(DEFINITION)
    return tmp_path


def factory(*arguments):
    command = [sys.executable, "-m", "shared_libs.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.promise("durable-drain")
def test_what_is_submitted_is_done_by_a_worker_that_ends_when_it_is_told_to(place, capsys):
    assert main(["submit", str(place / "hello.yaml"), "What is 17 * 23?", "--id", "mine"]) == 0
    assert capsys.readouterr().out == "mine\n"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def work():
        command = [sys.executable, "-m", "shared_libs.cli", "worker", "--health", str(port)]
        # whoever runs the tests may ignore that signal, and a child would as well
        heeds = partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)
        worker = await asyncio.create_subprocess_exec(*command, stderr=-1, preexec_fn=heeds)
        async with JobStore(os.environ["FACTORY_RUNS"]) as store:
            job = await until(store.get, "mine", wanted=ended)
        async with aiohttp.ClientSession() as client:
            for path in ("healthz", "readyz"):
                async with client.get(f"http://127.0.0.1:{port}/{path}") as answer:
                    assert answer.status == 200
            async with client.get(f"http://127.0.0.1:{port}/metrics") as answer:
                figures = await answer.text()
        worker.send_signal(signal.SIGHUP)  # as SIGTERM
        _, said = await worker.communicate()
        return job, worker.returncode, said.decode(), figures

    job, code, said, figures = asyncio.run(work())
    assert (job.status, job.priority) == ("answered", 2)
    assert job.result["answer"].startswith("17 * 23 = 391.")
    assert code == 0
    assert "drains: 0 runs" in said
    assert 'factory_runs_total{agent="hello",status="answered",stop_reason="final_answer"} 1.0' in figures
    for figure in (
        "worker_runs 0.0",
        'worker_claims_total{kind="new"} 1.0',
        "queue_waiting 0.0",
        "fact_seconds_count ",
    ):
        assert f"factory_{figure}" in figures


@pytest.mark.promise("durable-away")
def test_a_durable_agent_runs_durably_or_says_why_not(place, capsys, monkeypatch):
    ran = factory("run", str(place / "hello.yaml"), "What is 17 * 23?")
    assert (ran.returncode, ran.stdout.splitlines()[0]) == (0, "17 * 23 = 391.")
    with pytest.raises(MisuseError, match="nothing keeps its facts here"):
        asyncio.run(load_agent(place / "hello.yaml").async_run("x"))
    monkeypatch.setenv("FACTORY_RUNS", "postgresql://me:geheim@127.0.0.1:1/nowhere")
    ran = factory("run", str(place / "hello.yaml"), "x")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "nowhere" in ran.stderr
    assert main(["submit", str(place / "hello.yaml"), "x"]) == 1
    said = capsys.readouterr().err
    assert "127.0.0.1:1/nowhere" in said
    assert "geheim" not in said + ran.stderr


@pytest.mark.promise("durable-away")
def test_a_run_that_cannot_be_done_here_comes_back_and_says_why(place, capsys):
    lacks = place / "lacks.yaml"
    lacks.write_text(DEFINITION + "memory: {url: 'postgresql+asyncpg://x@127.0.0.1:1/nowhere'}\n")
    assert main(["run", str(lacks), "x", "--timeout", "5"]) == 1
    said = capsys.readouterr().err
    assert "nowhere" in said
    assert "stands in the queue" in said


@pytest.mark.promise("durable-away")
def test_a_run_whose_lane_is_full_comes_back_when_its_time_is_up(place, capsys):
    async def fill():
        async with JobStore(os.environ["FACTORY_RUNS"]) as store:
            await submit(store, "first", agent="hello", agent_limit=1)
            elsewhere = Holder(store.database, "elsewhere")
            await elsewhere.beat("elsewhere", 60.0, 1, draining=False)
            await elsewhere.claim(1)

    (place / "hello.yaml").write_text((place / "hello.yaml").read_text().replace("concurrency: 3", "concurrency: 1"))
    asyncio.run(fill())
    assert main(["run", str(place / "hello.yaml"), "x", "--timeout", "0.1"]) == 1
    said = capsys.readouterr().err
    assert "the time of 0.1 s is up, and it was not begun" in said
    assert "stands in the queue" in said


@pytest.mark.promise("durable-kept")
@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("llm: {provider: openai, model: m, api_key: sk-abc}", "llm.api_key"),
        ("memory: {url: 'postgresql+asyncpg://me:geheim@host/db'}", "memory.url"),
    ],
)
def test_a_definition_with_a_secret_in_plain_text_is_not_kept(place, line, where):
    file = place / "bad.yaml"
    llm = "" if line.startswith("llm") else "llm: {provider: rehearsal, script: hello}\n"
    file.write_text(f"name: bad\n{llm}{line}\n")
    with pytest.raises(ConfigError, match=f"{where}: holds a secret in plain text") as refused:
        submission(file, "x")
    assert "geheim" not in str(refused.value)
    assert "sk-abc" not in str(refused.value)


@pytest.mark.parametrize("run_id", ["", "a/b", "a\nb", "x" * 201])
def test_an_id_that_cannot_name_a_run_is_refused(place, run_id):
    with pytest.raises(MisuseError, match="a run's id"):
        submission(place / "hello.yaml", "x", run_id=run_id)


@pytest.mark.promise("durable-seen")
def test_a_list_of_runs_on_postgresql_waits_for_no_large_library(postgres):
    url = f"postgresql://owner@{postgres}"
    script = (
        f"import sys\nfrom shared_libs.cli import main\nmain(['runs', '--store', {url!r}])\n"
        "heavy = 'sqlalchemy pydantic aiohttp yaml structlog shared_libs.observability.redact'.split()\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )

    async def made():
        async with RunStore(url), JobStore(url):
            pass

    asyncio.run(made())
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.promise("durable-seen")
def test_runs_says_how_one_stands_and_ends_or_decides_it_from_any_process(place, capsys):
    url = os.environ["FACTORY_RUNS"]
    definition = str(place / "hello.yaml")
    assert main(["submit", definition, "What is 17 * 23?", "--id", "late", "--delay", "600"]) == 0
    assert main(["runs", "late"]) == 0
    said = capsys.readouterr().out
    assert "run late  hello  queued" in said
    assert "it may begin in 9 m" in said or "it may begin in 10 m" in said
    assert main(["runs"]) == 0
    assert "durable: 1 queued" in capsys.readouterr().err
    assert main(["runs", "la", "--cancel"]) == 0  # the beginning of its id
    assert main(["runs", "late", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["durable"]["status"] == "cancelled"
    assert main(["runs", "late", "--decide", "a=yes"]) == 2
    assert main(["runs", "nobody", "--cancel"]) == 2
    assert "no durable run 'nobody'" in capsys.readouterr().err

    async def wait_and_look():
        @tool(needs_approval=True)
        async def pay(amount: int) -> str:
            return f"paid {amount}"

        build = agent(lambda: by_length(turn(("a", "pay", {"amount": 1})), "done"), [pay])
        async with JobStore(url) as store, working(url, build):
            await submit(store, "payment")
            await until(store.get, "payment", wanted=lambda job: job.status == "waiting")
            looked = [
                await asyncio.to_thread(factory, *words)
                for words in (("runs", "payment"), ("doctor",), ("runs", "payment", "--decide", "a=yes"))
            ]
            await until(store.get, "payment", wanted=ended)
            return [*looked, await asyncio.to_thread(factory, "runs", "payment", "--follow")]

    shown, doctor, decided, followed = asyncio.run(wait_and_look())
    assert 'waits for a decision: pay {"amount": 1}' in shown.stdout
    assert "factory runs payment --decide a=yes|no" in shown.stdout
    assert "0 of 8: nothing" in doctor.stdout
    assert "1 waiting" in doctor.stdout
    assert (decided.returncode, decided.stderr.strip()) == (0, "a: decided")
    assert (followed.returncode, followed.stdout.strip()) == (0, "done")
    assert "paid 1" in followed.stderr
    assert main(["runs", "payment", "--decide", "a=no"]) == 0
    assert "a: somebody has decided before: yes; that counts" in capsys.readouterr().err


@pytest.mark.promise("durable-scheduled")
def test_a_schedule_is_made_listed_and_removed(place, capsys):
    definition = str(place / "hello.yaml")
    assert main(["submit", definition, "x", "--cron", "0 7 * * 1-5", "--zone", "Europe/Berlin"]) == 0
    assert capsys.readouterr().out == "hello\n"
    assert main(["schedules"]) == 0
    assert capsys.readouterr().out.startswith("hello  0 7 * * 1-5  Europe/Berlin  hello  next: 20")
    assert main(["schedules", "--remove", "hello"]) == 0
    assert main(["schedules", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"
    assert main(["submit", definition, "x", "--cron", "daily"]) == 2
    assert "five fields" in capsys.readouterr().err


@pytest.mark.usefixtures("place")
def test_a_worker_whose_port_of_health_is_another_s_says_so_and_does_not_work_unseen():
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        done = factory("worker", "--health", str(port))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == f"--health {port} cannot be listened on: Address already in use"


@pytest.mark.usefixtures("place")
def test_schedules_of_a_store_without_any(capsys):
    assert main(["schedules"]) == 0
    out, err = capsys.readouterr()
    assert (out, "there are no schedules; `factory submit" in err) == ("", True)


def test_a_store_in_a_folder_that_is_not_there_is_told(tmp_path, capsys):
    assert main(["schedules", "--store", f"sqlite:///{tmp_path}/no/x.db"]) == 1
    assert f"the folder {tmp_path}/no does not exist; make it" in capsys.readouterr().err

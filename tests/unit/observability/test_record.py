"""The run record: whole lines whatever ends the writer, no secrets, and clear words when it cannot be read."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from textwrap import dedent

import msgspec
import pytest

from shared_libs.atomic.errors import FactoryError, MisuseError
from shared_libs.atomic.events import RunFinished, RunStarted, TextDelta, ThinkingDelta, ToolFinished, ToolStarted
from shared_libs.observability import RunRecorder, read_record
from shared_libs.observability.spool import Spool
from tests.support import no_thread

SECRET = "sk-abcdefghijklmnopqrst"


def started(**more):
    given = {"agent": "a", "question": "q", "started_at": "", "timeout_s": 1.0, "model": "m", "protocol": "native"}
    return RunStarted(**(given | more), run_id="r", seq=1)


def recorded(path, *events):
    recorder = RunRecorder(path)
    for event in events:
        recorder(event)
    recorder.close()
    return read_record(path)


def test_a_run_is_read_back_as_it_was(tmp_path, answered):
    back = recorded(tmp_path / "run.jsonl", *answered)
    pieces = (TextDelta, ThinkingDelta)
    assert [event for event in back if not isinstance(event, pieces)] == [
        event for event in answered if not isinstance(event, pieces)
    ]
    assert "".join(event.text for event in back if isinstance(event, TextDelta)) == "".join(
        event.text for event in answered if isinstance(event, TextDelta)
    )
    assert [event.seq for event in back] == sorted(event.seq for event in back)
    assert isinstance(back[-1], RunFinished)


def test_only_its_owner_reads_a_record(tmp_path, answered):
    recorded(tmp_path / "run.jsonl", *answered)
    assert (tmp_path / "run.jsonl").stat().st_mode & 0o777 == 0o600


def test_pieces_of_text_are_joined_so_that_a_secret_in_pieces_is_masked(tmp_path):
    back = recorded(
        tmp_path / "run.jsonl",
        started(),
        TextDelta(text="it is sk-abcdef", run_id="r"),
        TextDelta(text="ghijklmnop", run_id="r"),
        ThinkingDelta(text="hm", run_id="r"),
        TextDelta(text="end", run_id="r"),
    )
    assert [(type(event).__name__, event.text) for event in back[1:]] == [
        ("TextDelta", "it is [redacted]"),
        ("ThinkingDelta", "hm"),
        ("TextDelta", "end"),
    ]


def test_no_secret_is_written(tmp_path):
    path = tmp_path / "run.jsonl"
    recorded(
        path,
        started(question=f"use {SECRET}"),
        ToolStarted(step=1, tool="t", input={"password": "hunter2", "url": "postgres://u:hunter2@h/d"}, call_id="c"),
        ToolFinished(step=1, tool="t", call_id="c", content=f'{{"k": "{SECRET}"}}', is_error=False, elapsed_s=0.0),
    )
    text = path.read_text()
    assert SECRET not in text
    assert "hunter2" not in text
    assert text.count("[redacted]") == 4


def test_text_that_is_not_valid_unicode_is_recorded_all_the_same(tmp_path):
    back = recorded(tmp_path / "run.jsonl", started(question="broken \ud800 text"))
    assert back[0].question == "broken ? text"


def test_a_cut_last_line_is_left_out_and_told(tmp_path, answered):
    path = tmp_path / "run.jsonl"
    whole = recorded(path, *answered)
    data = path.read_bytes()
    for cut in (1, 2, 20, len(data.splitlines()[-1]) - 1):
        path.write_bytes(data[:-cut])
        notes = []
        back = read_record(path, on_note=notes.append)
        if cut == 1:  # only the line's end is missing
            assert (back, notes) == (whole, [])
        else:
            assert back == whole[:-1]
            assert notes == [f"{path}:{len(whole)}: the last line is cut off and left out: its writer was stopped"]


def test_a_killed_writer_leaves_whole_lines(tmp_path):
    path = tmp_path / "run.jsonl"
    script = dedent(
        """
        import sys
        from shared_libs.atomic.events import Warned
        from shared_libs.observability import RunRecorder
        recorder = RunRecorder(sys.argv[1])
        number = 0
        while True:
            for _ in range(100):
                number += 1
                recorder(Warned(message="x" * 5000, run_id="r", seq=number))
            recorder._spool.flush(60)
            print(number, flush=True)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        flushed = [int(writer.stdout.readline()) for _ in range(3)][-1]
        writer.send_signal(signal.SIGKILL)
    notes = []
    back = read_record(path, on_note=notes.append)
    assert [event.seq for event in back] == list(range(1, len(back) + 1))
    assert len(back) >= flushed


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no events"),
        ("\n\n", "holds no events"),
        ("hello\n", ":1: not an event of a run record: "),
        ("name: agent\nllm: x\n", ":1: not an event of a run record: "),
        ('{"type":"run_begun"}\n', ":1: not an event of a run record: Invalid value 'run_begun'"),
        ('{"type":"warned","message":"m"}\n{"type":"warned"}\n', ":2: not an event of a run record: "),
        ('{"type":"warned","message":"m"}\n\xff\xfe\n{"type":"warned","message":"m"}\n', ":2: not an event"),
        ("half a line", ":1: not an event of a run record: "),
    ],
)
def test_what_is_no_record_is_refused_with_its_place(tmp_path, content, said):
    path = tmp_path / "run.jsonl"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(MisuseError) as caught:
        read_record(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(MisuseError, match="cannot be read: No such file"):
        read_record(tmp_path / "none.jsonl")
    with pytest.raises(MisuseError, match="cannot be read: "):
        read_record("a\0b")


def test_folders_are_made_and_an_older_record_is_replaced_only_by_a_new_run(tmp_path):
    path = tmp_path / "deep" / "er" / "run.jsonl"
    recorded(path, started(question="first"))
    RunRecorder(path, mode="replace").close()
    assert read_record(path)[0].question == "first"
    with RunRecorder(path, mode="replace") as recorder:
        recorder(started(question="second"))
    assert [event.question for event in read_record(path)] == ["second"]


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.write_text("name: precious\n")])
def test_a_file_that_must_not_or_cannot_be_written_is_refused_before_anything_happens(tmp_path, make):
    path = tmp_path / "agent.yaml"
    make(path)
    with pytest.raises(MisuseError, match=r"agent\.yaml"):
        RunRecorder(path)
    assert path.is_dir() or path.read_text() == "name: precious\n"


def test_a_parent_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(MisuseError, match="cannot be written"):
        RunRecorder(tmp_path / "file" / "run.jsonl")


@pytest.mark.skipif(sys.platform != "linux", reason="the device is Linux's")
def test_a_full_disk_is_told_at_the_end_and_disturbs_nothing_before():
    recorder = RunRecorder("/dev/full")
    for number in range(50):
        recorder(TextDelta(text=str(number)))
        recorder(started())
    with pytest.raises(FactoryError, match="/dev/full is not complete: No space left on device"):
        recorder.close()


def test_closing_twice_is_fine(tmp_path):
    recorder = RunRecorder(tmp_path / "run.jsonl")
    recorder(started())
    recorder.close()
    recorder.close()


def test_lines_are_plain_json(tmp_path, answered):
    path = tmp_path / "run.jsonl"
    recorded(path, *answered)
    lines = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    assert lines[0]["type"] == "run_started"
    assert lines[-1]["type"] == "run_finished"
    assert lines[-1]["result"]["status"] == "answered"


def test_the_runs_of_yesterday_are_still_there(tmp_path, answered, partial):
    path = tmp_path / "runs.jsonl"
    for events in (answered, partial, answered):
        with RunRecorder(path) as recorder:
            for event in events:
                recorder(event)
    assert sum(isinstance(event, RunFinished) for event in read_record(path)) == 3


@pytest.mark.parametrize("before", [0, 1])
def test_behind_a_line_that_was_cut_off_the_next_one_begins_on_its_own(tmp_path, answered, before):
    path = tmp_path / "runs.jsonl"
    for _ in range(before):
        recorded(path, *answered)
    with path.open("ab") as file:
        file.write(b'{"type":"tool_started","run_id":"r","se')
    notes = []
    with RunRecorder(path) as recorder:
        for event in answered:
            recorder(event)
    back = read_record(path, on_note=notes.append)
    assert sum(isinstance(event, RunFinished) for event in back) == before + 1
    assert len(notes) == 1
    assert "cut off" in notes[0]


def test_what_comes_after_the_end_is_recorded_too(tmp_path, answered):
    path = tmp_path / "runs.jsonl"
    recorder = RunRecorder(path)
    for _ in range(2):
        for event in answered:
            recorder(event)
        recorder.close()
        recorder.close()
    assert sum(isinstance(event, RunFinished) for event in read_record(path)) == 2


AT_EXIT = """
    import asyncio, sys
    from shared_libs.agents import ReActAgent
    from shared_libs.atomic.llms import ScriptedLLM
    from shared_libs.observability import RunRecorder

    agent = ReActAgent(llm=ScriptedLLM(["x"] * 20), observers=[RunRecorder(sys.argv[1])])

    async def main():
        for _ in range(20):
            await agent.async_run("q")

    asyncio.run(main())
"""


def test_several_processes_write_to_one_file_and_what_is_left_is_written_at_their_end(tmp_path):
    path = tmp_path / "runs.jsonl"
    command = [sys.executable, "-c", dedent(AT_EXIT), str(path)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    back = read_record(path)
    assert sum(isinstance(event, RunStarted) for event in back) == 60
    assert sum(isinstance(event, RunFinished) for event in back) == 60


def test_a_record_may_begin_anew(tmp_path, answered):
    path = tmp_path / "run.jsonl"
    for _ in range(2):
        with RunRecorder(path, mode="replace") as recorder:
            for event in answered:
                recorder(event)
    assert sum(isinstance(event, RunFinished) for event in read_record(path)) == 1
    with pytest.raises(MisuseError, match="allowed are"):
        RunRecorder(path, mode="write")


def test_who_writes_slowly_but_gets_on_is_waited_for_and_who_does_not_is_left():
    written, never = [], threading.Event()

    def slowly(item):
        never.wait(0.02)
        written.append(item)

    spool = Spool(slowly, name="slow")
    for number in range(120):
        spool.put(number)
    assert spool.flush(2.0, patiently=True)
    assert len(written) == 120
    stuck = Spool(lambda _: never.wait(60), name="stuck")
    stuck.put(1)
    assert not stuck.flush(0.1, patiently=True)
    never.set()


def test_what_is_put_while_no_thread_can_start_is_consumed_by_the_next_that_does():
    consumed = []
    spool = Spool(consumed.append, name="refused")
    with no_thread("factory-refused"):
        spool.put(1)
        assert not spool.flush(0.01)
    spool.put(2)
    assert spool.flush()
    assert consumed == [1, 2]

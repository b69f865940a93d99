"""What models were asked is kept where contents are: whole, once, without secrets, and off the event loop."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from shared_libs.agents import ReActAgent
from shared_libs.atomic import tool
from shared_libs.atomic.errors import RateLimited
from shared_libs.atomic.events import ModelAsked
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.atomic.llms.scripted_llm import Turn
from shared_libs.atomic.types import ImagePart, Message, TextPart
from shared_libs.cli import main
from shared_libs.observability import RunRecorder, RunStore
from shared_libs.observability.record import read_record
from shared_libs.observability.runs.requests import whole_requests
from shared_libs.observability.terminal import draw_requests
from tests.support import run_virtual

pytestmark = pytest.mark.promise("runs-sent")

SECRET = "sk-abcdefghijklmnopqrst"


@tool
async def look_up(place: str, password: str = "") -> str:
    """Look a place up."""
    return f"{place}: 12 \N{DEGREE SIGN}C, seen with token={SECRET}"


def turns(count):
    return [*({"calls": [("look_up", {"place": f"town {n}"})]} for n in range(count)), "12 degrees."]


def asked(script, observers, question="How warm?", **given):
    """Run an agent to its end; return what its model saw, too."""
    llm = ScriptedLLM(
        [Turn(**turn) if isinstance(turn, dict) else turn for turn in script],
        model="m",
    )
    agent = ReActAgent(llm=llm, tools=[look_up], instructions="Be brief.", observers=observers, **given)

    async def main():
        return await agent.async_run(question, run_id="r", timeout=600)

    return run_virtual(main()), llm.requests


def kept(url, run_id="r"):
    async def main():
        store = RunStore(url)
        found = [ModelAsked.from_dict(each) for each in await store.async_requests(run_id)]
        await store.aclose()
        return found

    return run_virtual(main())


def recorded(url, script, **given):
    with_store = RunStore(url, contents=given.pop("contents", True))
    result, seen = asked(script, [with_store.observer()], **given)
    assert with_store.close()
    return result, seen


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/runs.db"


def test_every_request_is_had_again_as_the_model_saw_it(url):
    result, seen = recorded(url, [RateLimited("slow down"), *turns(3)])
    found = whole_requests(kept(url))
    assert result.status == "answered"
    assert len(found) == len(seen) == len(result.attempts) == 5
    for request, messages in zip(found, seen, strict=True):
        told = [message.text.replace(SECRET, "[redacted]") for message in messages]
        assert [message.text for message in request.messages] == told
        assert [tool.name for tool in request.tools] == ["look_up"]
    assert found[1].messages == found[0].messages  # the second try


def test_a_run_of_many_turns_tells_each_message_once(url):
    recorded(url, turns(40), limits={"max_steps": 60, "max_tool_calls": 60})
    found = kept(url)
    assert len(found) == 41
    assert [len(request.messages) for request in found] == [2, *[2] * 40]
    assert [request.tools is None for request in found] == [False, *[True] * 40]
    sizes = [len(json.dumps(request.to_dict())) for request in found]
    assert max(sizes[1:]) < 2 * min(sizes[1:])  # the last as long as the second


def test_it_belongs_to_its_attempt_and_moves_no_number_of_an_event(url):
    events = []
    recorded_store = RunStore(url)
    asked(turns(2), [events.append, recorded_store.observer()])
    assert recorded_store.close()
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert not any(isinstance(event, ModelAsked) for event in events)  # who does not want them is told none
    began = [event.seq for event in events if event.to_dict()["type"] == "attempt_started"]
    assert [request.seq for request in kept(url)] == began


def test_nothing_of_it_is_kept_where_contents_are_not(url):
    recorded(url, turns(1), contents=False)
    assert kept(url) == []


def test_a_parameter_that_is_named_as_a_secret_is_described_all_the_same(url):
    recorded(url, turns(1))
    (told,) = kept(url)[0].tools
    assert told.parameters["properties"]["password"]["type"] == "string"


def test_of_an_image_it_is_kept_which_it_was_and_of_a_long_text_its_beginning(url):
    image = ImagePart.from_bytes(b"x" * 1_000_000)
    question = [Message("user", (TextPart("What is this?"), image, TextPart("y" * 300_000)))]
    recorded(url, ["A cross."], question=question)
    parts = kept(url)[0].messages[-1].content
    assert parts[1].url == image.place
    assert len(parts[1].url) < 100
    assert parts[2].text.endswith("(100000 more characters are not kept)")
    assert len(parts[2].text) < 201_000


def test_a_record_has_them_and_is_drawn_with_and_without(tmp_path, capsys):
    path = tmp_path / "r.jsonl"
    with RunRecorder(path) as recorder:
        asked(turns(1), [recorder])
    assert sum(isinstance(event, ModelAsked) for event in read_record(path)) == 2
    assert main(["trace", str(path)]) == 0
    assert "Be brief." not in capsys.readouterr().out
    assert main(["trace", str(path), "--sent"]) == 0
    out = capsys.readouterr().out
    for words in ("scripted/m was asked", "Be brief.", "tools look_up", "4 messages, 2 new"):
        assert words in out
    assert SECRET not in out


def test_the_command_line_shows_them_and_says_why_there_are_none(url, capsys):
    recorded(url, turns(1))
    assert main(["trace", "r", "--sent", "--store", url]) == 0
    assert "look_up: 12" not in (out := capsys.readouterr().out)
    assert "town 0: 12" in out
    assert main(["runs", "r", "--json", "--store", url]) == 0
    requests = json.loads(capsys.readouterr().out)["requests"]
    assert [each["kept"] for each in requests] == [0, 2]
    silent = url.replace("runs.db", "silent.db")
    recorded(silent, turns(1), contents=False)
    assert main(["trace", "r", "--sent", "--store", silent]) == 2
    assert "FACTORY_RUNS_CONTENTS" in capsys.readouterr().err


def test_what_was_asked_cannot_steer_a_terminal_and_fits_one_without_unicode(url):
    recorded(url, ["Ja."], question="\x1b[31mred \N{RIGHT-TO-LEFT OVERRIDE}no")
    console = Console(width=60, record=True, file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    draw_requests(kept(url), console)
    text = console.export_text()
    assert "\x1b" not in text
    assert text.isascii()
    assert all(len(line) <= 60 for line in text.splitlines())

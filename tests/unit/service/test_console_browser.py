"""The console in a real Chromium: what is seen, what is done by keyboard, what axe finds, and what hostile words do."""

from __future__ import annotations

import asyncio
import json
import shutil
from asyncio.subprocess import PIPE

import pytest

from shared_libs.atomic import events as e
from shared_libs.atomic.results import Action, AgentResult, Step, StillRunning
from shared_libs.atomic.types import Attempt, LLMResponse, Stage, Thinking
from shared_libs.testing import load_scenarios, play
from tests.browser import PHONE, browser, violations, visit
from tests.console_states import cited, everything, sub_agent
from tests.service import HELLO, serving, write

QUESTION = "What is 17 * 23?"

__all__ = ["browser"]
pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path, hello=HELLO)


@pytest.mark.promise("console-shows")
def test_a_question_is_asked_in_the_chat_and_its_run_is_found_and_looked_into_by_keyboard(folder, browser):
    async def main():
        async with serving(folder) as served, browser.looking(served.url) as page:
            await visit(page, "chat/hello")
            wrong = await violations(page)
            await page.get_by_label("Question").fill(QUESTION)
            await page.keyboard.press("Enter")
            await page.get_by_text("17 * 23 = 391").wait_for()
            await page.get_by_text("answered", exact=True).wait_for()
            wrong += await violations(page)
            await page.get_by_role("link", name="Runs", exact=True).press("Enter")
            await page.get_by_role("link", name=QUESTION).press("Enter")
            await page.get_by_role("heading", name=QUESTION).wait_for()
            await page.get_by_text("What the time went on").wait_for()
            grid = page.get_by_role("treegrid")
            await page.locator(".row").nth(3).wait_for()
            await grid.focus()
            for _ in range(4):  # the memory, the step, the model, the tool
                await page.keyboard.press("ArrowDown")
            detail = page.get_by_role("region", name="Detail of calculator")
            await detail.wait_for()
            wrong += await violations(page)
            return wrong, page.told, await detail.inner_text(), await grid.get_attribute("aria-rowcount")

    wrong, told, detail, rows = browser.run(main())
    assert wrong == []
    assert told == []
    assert "17 * 23" in detail
    assert "391" in detail
    assert int(rows) > 4


@pytest.mark.promise("console-shows")
def test_every_place_is_sound_on_a_phone_light_and_dark(folder, browser):
    async def main():
        found = {}
        async with serving(folder) as served, browser.looking(served.url, viewport=PHONE) as page:
            _, headers, _ = await served.run()
            for place in ("runs", f"runs/{headers['x-factory-run-id']}", "chat", "agents", "service", "nowhere"):
                await visit(page, place)
                await page.locator("main h1, main [role=alert]").first.wait_for()
                too_wide = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
                found[place] = ["wider than the screen"] if too_wide else []
                for scheme in ("light", "dark"):
                    await page.emulate_media(color_scheme=scheme)
                    found[place] += await violations(page)
            return found, page.told

    found, told = browser.run(main())
    assert {place: wrong for place, wrong in found.items() if wrong} == {}
    assert told == []


HOSTILE = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "</pre></div><iframe srcdoc='<script>parent.hacked = 1</script>'></iframe>",
    "javascript:window.hacked=1",
    "[click](javascript:window.hacked=1) ![x](http://127.0.0.1:1/leak.png)",
    "\x1b[31mred\x1b[0m \u202e\u2066reversed\x00\ufffe",
    "${window.hacked=1} {{constructor.constructor('window.hacked=1')()}}",
    "__proto__",
]


def hostile_run(words: str, number: int) -> list:
    """A run that says the same hostile thing wherever something is said."""
    at = iter(range(1, 100))
    told = [
        e.RunStarted(
            agent=words,
            question=words,
            started_at="2026-11-27T08:00:00+00:00",
            timeout_s=60,
            model=words,
            protocol=words,
            session_id=words,
        ),
        e.MemoryLoaded(session_id=words, messages=1, elapsed_s=0.1),
        e.StepStarted(step=1),
        e.LimitWaited(provider=words, model=words, waited_s=0.1, limit=words),
        e.AttemptStarted(provider=words, model=words, number=1),
        e.AttemptFinished(
            attempt=Attempt(provider=words, model=words, number=1, outcome=words, why=words, ended_s=0.1)
        ),
        e.RetryScheduled(provider=words, model=words, wait_s=1, why=words),
        e.FellBack(provider=words, model=words, next_provider=words, next_model=words, why=words),
        e.BreakerChanged(provider=words, model=words, state=words),
        e.StreamRestarted(reason=words),
        e.TextDelta(text=words),
        e.ThinkingDelta(text=words),
        e.ModelFinished(step=1, response=LLMResponse(text=words, thinking=(Thinking(text=words),))),
        e.Thought(step=1, text=words),
        e.ToolStarted(step=1, tool=words, input={words: words}, call_id=words),
        e.RetrievalStarted(operation=words, collection=words, query=words, k=1),
        e.RetrievalFinished(
            operation=words,
            collection=words,
            started=16,
            elapsed_s=0.1,
            scores={words: 1.0},
            error=words,
            stages=(Stage(name=words, state="failed", reason=words),),
        ),
        e.ApprovalRequested(step=1, tool=words, input=words, call_id=words),
        e.Abandoned(what=words, name=words, call_id=words),
        e.AbandonedEnded(what=words, name=words, call_id=words, late_s=1.0),
        e.ToolFinished(step=1, tool=words, call_id=words, content=words, is_error=True, elapsed_s=1.0),
        e.LoopBlocked(tool=words, call_id=words, blocked_s=1.0, stack=words, place=words),
        e.LimitReached(stop_reason=words, why=words),
        e.Warned(message=words),
    ]
    result = AgentResult(
        run_id="",
        status="partial",
        stop_reason="deadline",
        answer=words,
        error=words,
        elapsed_s=20.0,
        cost_usd=0.1,
        still_running=(StillRunning(tool=words, call_id=words, since_s=1.0),),
        steps=(Step(thought=words, actions=(Action(words, {words: words}, words),)),),
    )
    told.append(e.RunFinished(result=result))
    for event in told:
        event.run_id, event.seq = f"hostile-{number}", next(at)
        event.at_s = float(event.seq)
    return told


@pytest.mark.promise("console-shows")
def test_a_run_with_everything_in_it_is_seen_by_keyboard_and_saved_as_a_scenario_that_holds(folder, browser):
    async def main():
        async with serving(folder) as served, browser.looking(served.url) as page:
            for event in [*everything(), *sub_agent()]:
                served.service.store.record(event)
            await served.service.store.flush()
            await visit(page, "runs/everything")
            grid = page.get_by_role("treegrid")
            call = grid.get_by_role("row").filter(has_text="ask")
            await page.locator(".row[aria-expanded=false]").wait_for()
            await grid.focus()
            for _ in range(7):  # the memory, the step, two models, three tools
                await page.keyboard.press("ArrowDown")
            await page.keyboard.press("ArrowRight")
            await page.locator(".row.inner").nth(1).wait_for()
            folded = await call.first.get_attribute("aria-expanded")
            left = await page.locator(".row.left-running").inner_text()
            marks = [await page.locator(f".mark.{kind}").count() for kind in ("wait", "cancelled", "left-running")]
            async with page.expect_download() as saved:
                await page.get_by_role("button", name="Save as scenario").click()
            file = folder / "again.scenario.yaml"
            await (await saved.value).save_as(file)
            return folded, left, marks, await violations(page), page.told, file

    folded, left, marks, wrong, told, file = browser.run(main())
    assert (folded, wrong) == ("true", [])
    assert "left running" in left
    assert marks[0] >= 2 <= marks[1]
    assert told == []
    (scenario,) = load_scenarios(file.rename(write_flights(folder) / file.name))
    assert scenario.spec.timeout_s == 20
    assert [fault.fault for fault in scenario.spec.faults] == ["rate_limited", "server_error"]


def write_flights(folder):
    return write(folder, flights="name: flights\nllm: {provider: openai, model: gpt-5.4-mini}\n")


@pytest.mark.promise("console-shows", "runs-saved", "runs-sent")
def test_what_was_saved_plays_the_run_again_and_what_was_asked_is_shown(folder, browser):
    async def main():
        async with serving(folder) as served, browser.looking(served.url) as page:
            _, headers, told = await served.run()
            await visit(page, f"runs/{headers['x-factory-run-id']}")
            await page.locator(".row.model").last.click()
            await page.get_by_text("of them new").wait_for()
            asked = await page.locator("details.request").inner_text()
            saved = []
            page.on("download", lambda one: saved.append(one))  # noqa: PLW0108 - playwright marks it
            for button, count in (("Save as scenario", 1), ("Save as cassette", 3)):
                async with page.expect_event("download", lambda _, count=count: len(saved) == count):
                    await page.get_by_role("button", name=button).click()
            for number, one in enumerate(saved):
                await one.save_as(folder / ("script" if not number else "tape") / one.suggested_filename)
            first = page.url
            await page.get_by_role("button", name="Run again with 5 s").click()
            await page.wait_for_url(lambda url: url != first)
            await page.get_by_text("answered", exact=True).wait_for()
            rerun = await served.get(f"/v1/runs/{page.url.rpartition('/')[2]}")
            return told["answer"], asked, rerun[2], await violations(page), page.told

    answer, asked, rerun, wrong, told = browser.run(main())
    assert "2 of them new" in asked
    assert (wrong, told, round(rerun["timeout_s"])) == ([], [], 5)
    for file in (next(folder.glob("script/*.yaml")), next(folder.glob("tape/*.scenario.yaml"))):
        file.with_name("hello.yaml").write_text((folder / "hello.yaml").read_text())
        (scenario,) = load_scenarios(file)
        played = play(scenario)
        assert (played.differences, played.result.answer) == ([], answer)


@pytest.mark.promise("console-shows")
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_what_is_copied_as_curl_begins_the_run_again(folder, browser):
    allowed = ["clipboard-read", "clipboard-write"]

    async def main():
        async with serving(folder) as served, browser.looking(served.url, permissions=allowed) as page:
            _, headers, told = await served.run(body={"question": 'What is 17 * 23? It\'s "6".'})
            await visit(page, f"runs/{headers['x-factory-run-id']}")
            await page.get_by_role("button", name="Copy as curl").click()
            await page.get_by_text("Copied").wait_for()
            command = await page.evaluate("navigator.clipboard.readText()")
            asking = await asyncio.create_subprocess_exec("sh", "-c", command, stdout=PIPE, stderr=PIPE)
            said, _ = await asking.communicate()
            return said.decode(), told["answer"]

    said, answer = browser.run(main())
    assert json.loads(said.rpartition("data: ")[2].partition("\n")[0])["result"]["answer"] == answer


@pytest.mark.promise("console-shows")
def test_what_an_answer_cites_is_shown_and_passages_are_found_where_they_stand(folder, browser):
    shelf = f'collections:\n  manual: {{url: "sqlite:///{folder}/manual.db", embedder: null}}\n'
    write(folder, collections=shelf)
    text = "\U0001f334 Holidays.\n\nEveryone has 25 days of leave a year."  # the palm is two units of a browser's text

    async def main():
        async with serving(folder) as served, browser.looking(served.url) as page:
            for event in cited():
                served.service.store.record(event)
            await served.service.store.flush()
            documents = {"documents": [{"source": "leave.md", "title": "Leave", "text": text}]}
            async with served.http.post("/v1/collections/manual/index", json=documents) as answer:
                assert (await answer.json())["finished"]
            await visit(page, "runs/cited")
            shown = await page.get_by_role("region", name="What it cites").inner_text()
            wrong = await violations(page)
            await page.get_by_role("link", name="Documents").click()
            await page.get_by_label("Question").fill("days of leave")
            await page.keyboard.press("Enter")
            await page.get_by_role("button", name="Leave").click()
            marked = await page.locator("mark").inner_text()
            return shown, marked, wrong + await violations(page), page.told

    shown, marked, wrong, told = browser.run(main())
    assert "leave.md, characters 0 to 37" in shown
    assert "Cited, but never seen: [deadbeef]" in shown
    assert marked in text
    assert marked.endswith("a year.")
    assert (wrong, told) == ([], [])


@pytest.mark.promise("console-hostile")
def test_nothing_that_was_said_runs_on_the_page_or_reaches_for_another_address(folder, browser):
    async def main():
        async with serving(folder) as served, browser.looking(served.url) as page:
            for number, words in enumerate(HOSTILE):
                for event in hostile_run(words, number):
                    served.service.store.record(event)
            await served.service.store.flush()
            await visit(page, "runs")
            await page.locator("tbody tr").nth(len(HOSTILE) - 1).wait_for()
            shown = []
            for number, words in enumerate(HOSTILE):
                await visit(page, f"runs/hostile-{number}")
                await page.locator(".row").nth(3).wait_for()
                await page.get_by_role("treegrid").focus()
                for _ in range(5):
                    await page.keyboard.press("ArrowDown")
                    await page.locator(".detail").wait_for()
                shown.append(words.split()[0].strip("\x00")[:10] in await page.locator("main").inner_text())
                assert await page.evaluate("window.hacked") is None, words
                assert (
                    await page.evaluate("document.querySelectorAll('main iframe, main img, main script').length") == 0
                )
                links = "[...document.links].every(link => link.hash && link.origin === location.origin)"
                assert await page.evaluate(links)
            return shown, page.told

    shown, told = browser.run(main())
    assert all(shown)
    assert told == []


@pytest.mark.promise("console-hostile")
def test_a_long_answer_and_many_steps_are_shown_as_far_as_they_are_in_sight(folder, browser):
    start = e.RunStarted(
        agent="hello", question="q", started_at="2026-11-27T08:00:00+00:00", timeout_s=60, model="m", protocol="native"
    )
    many = [start]
    for step in range(1, 1001):
        many += [
            e.StepStarted(step=step),
            e.ToolStarted(step=step, tool="look", input={"n": step}, call_id=f"c{step}"),
            e.ToolFinished(step=step, tool="look", call_id=f"c{step}", content="x", is_error=False, elapsed_s=0.01),
        ]
    answer = "long " * 400_000
    many.append(
        e.RunFinished(result=AgentResult(run_id="many", status="answered", stop_reason="final_answer", answer=answer))
    )
    for seq, event in enumerate(many, 1):
        event.run_id, event.seq, event.at_s = "many", seq, seq / 100

    async def main():
        async with serving(folder) as served, browser.looking(served.url) as page:
            for event in many:
                served.service.store.record(event)
            await served.service.store.flush()
            await visit(page, "runs/many")
            await page.get_by_text("Show more of 2,000,000 characters").wait_for()
            rows = page.get_by_role("treegrid").locator(".row")
            await rows.first.wait_for()
            await page.get_by_role("treegrid").focus()
            await page.keyboard.press("End")
            await page.get_by_role("region", name="Detail of look").get_by_text("1000").first.wait_for()
            return await rows.count(), len(await page.locator("main").inner_text()), page.told

    rows, shown, told = browser.run(main())
    assert rows < 100
    assert shown < 20_000
    assert told == []

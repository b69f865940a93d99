"""The console in a real Chromium: what is seen, what is done by keyboard, what axe finds, and what hostile words do."""

from __future__ import annotations

import pytest

from tests.browser import PHONE, looking, violations
from tests.service import HELLO, serving, write
from tests.support import run

QUESTION = "What is 17 * 23?"


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path, hello=HELLO)


@pytest.mark.promise("console-shows")
def test_a_question_is_asked_in_the_chat_and_its_run_is_found_and_looked_into_by_keyboard(folder):
    async def main():
        async with serving(folder) as served, looking(served.url) as page:
            await page.goto("/#/chat/hello")
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
            grid = page.get_by_role("grid")
            await grid.focus()
            for _ in range(4):  # the memory, the step, the model, the tool
                await page.keyboard.press("ArrowDown")
            detail = page.get_by_role("region", name="Detail of calculator")
            await detail.wait_for()
            wrong += await violations(page)
            return wrong, page.told, await detail.inner_text(), await grid.get_attribute("aria-rowcount")

    wrong, told, detail, rows = run(main())
    assert wrong == []
    assert told == []
    assert "17 * 23" in detail
    assert "391" in detail
    assert int(rows) > 4


@pytest.mark.promise("console-shows")
def test_every_place_is_sound_on_a_phone_light_and_dark(folder):
    async def main():
        found = {}
        async with serving(folder) as served, looking(served.url, viewport=PHONE) as page:
            _, headers, _ = await served.run()
            for place in ("runs", f"runs/{headers['x-factory-run-id']}", "chat", "agents", "service", "nowhere"):
                await page.goto(f"/#/{place}")
                await page.locator("main h1, main [role=alert]").first.wait_for()
                too_wide = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
                found[place] = ["wider than the screen"] if too_wide else []
                for scheme in ("light", "dark"):
                    await page.emulate_media(color_scheme=scheme)
                    found[place] += await violations(page)
            return found, page.told

    found, told = run(main())
    assert {place: wrong for place, wrong in found.items() if wrong} == {}
    assert told == []

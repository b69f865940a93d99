"""Runs as a file of their own: drawn by the console's module, asking nobody, and without a script where none runs."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest

from shared_libs.atomic.events import ModelAsked, Warned
from shared_libs.atomic.types import Message
from shared_libs.observability import run_page
from shared_libs.observability.run_file import BLOCK, MOST_STATIC
from tests.browser import PHONE, browser, violations
from tests.console_states import everything, failed, sub_agent

__all__ = ["browser"]
pytestmark = [pytest.mark.promise("run-file"), pytest.mark.xdist_group("browser")]

HOSTILE = "</script><script>alert(1)</script><!--<img src=x onerror=alert(1)>]]></noscript>"


def asked(event, *messages, base=None, kept=0):
    told = {"run_id": event.run_id, "seq": event.seq, "provider": "openai", "model": "m", "options": {}}
    return ModelAsked(**told, base=base, kept=kept, messages=[Message("user", text) for text in messages])


def with_requests():
    told = [*everything(), *sub_agent()]
    first, second, third, *_ = [event for event in told if event.to_dict()["type"] == "attempt_started"]
    return [
        asked(first, "Which delays?", HOSTILE, "sk-abcdefghijklmnopqrst"),
        asked(second, base=first.seq, kept=3),
        asked(third, "And now?", base=second.seq, kept=2),
        *told,
    ]


def blocks(page):
    found = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    return [json.loads(block) for block in found]


def test_its_policy_lets_its_own_script_run_and_nothing_else():
    page = run_page(with_requests())
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "base-uri 'none'",
        "form-action 'none'",
        f"script-src 'sha256-{digest}'",
    ]
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//|@import|url\(""", page)


def test_what_was_said_ends_no_block_and_secrets_are_masked():
    page = run_page(with_requests())
    first, *_ = blocks(page)
    assert first["requests"][0]["messages"][1]["content"] == HOSTILE
    assert "<img" not in page
    assert "sk-abc" not in page


def test_a_long_run_comes_in_blocks_and_is_not_drawn_twice():
    told = [Warned(message=str(n), run_id="r", seq=n) for n in range(MOST_STATIC + 1)]
    page = run_page(told)
    assert max(len(block["events"]) for block in blocks(page)) == BLOCK
    assert "scripts do not run here" in page


def test_it_opens_without_a_server_and_shows_what_models_were_asked(tmp_path, browser):
    one, many = tmp_path / "one.html", tmp_path / "many.html"
    one.write_text(run_page(with_requests()))
    many.write_text(run_page([*everything(), *failed()]))

    async def main():
        async with browser.looking("file://", viewport=PHONE) as page:
            await page.goto(one.as_uri())
            grid = page.get_by_role("treegrid")
            await grid.focus()
            for _ in range(3):  # the memory, the step, the model that failed twice
                await page.keyboard.press("ArrowDown")
            await page.get_by_text("Asked at try 2").click()
            await page.get_by_role("button", name="Show the 3 before").click()
            request = page.locator("details.request").nth(1)
            await request.get_by_text("Which delays?").wait_for()
            said = await request.locator("li").all_inner_texts()
            await page.locator(".row", has_text="ask").locator(".fold").click()
            inner = await page.locator(".row.inner").count()
            wrong = await violations(page)
            wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
            await page.goto(many.as_uri())
            await page.get_by_role("link").nth(1).click()
            await page.get_by_text("All runs").wait_for()
            alone = await page.locator("h1").inner_text()
            told = page.told
        async with browser.looking("file://", java_script_enabled=False) as page:
            await page.goto(one.as_uri())
            await page.locator("summary").nth(2).click()
            bare = await page.locator("main").first.text_content()
            return said, inner, wrong, wide, alone, told, bare

    said, inner, wrong, wide, alone, told, bare = browser.run(main())
    assert [text.split("\n", 1)[0] for text in said] == ["user"] * 3
    assert HOSTILE in said[1]
    assert (inner > 0, wrong, wide, told) == (True, [], 0, [])
    assert alone == "Which delays at EWR were due to the weather?"
    assert "Still running at the end" in bare
    assert "slow down" in bare

"""
Pictures of every state of the console, desktop and phone, light and dark, each looked through by axe.

`python -m bench.console_pictures DIR` serves runs that show each state, takes the pictures into the folder, and prints
what axe finds, what the page complained of, and what is wider than the screen. Exit code 1 where there is anything.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.browser import DESKTOP, PHONE, looking, violations, visit
from tests.console_states import STATES
from tests.service import HELLO, serving, write

BROKEN = "name: broken\nllm: {provider: openai}\ntoolz: [sql]\n"
SHELF = 'collections:\n  manual: {{url: "sqlite:///{}/manual.db", embedder: null}}\n'
LEAVE = {
    "source": "leave.md",
    "title": "Leave",
    "text": "\U0001f334 Holidays. " + "Everyone has 25 days of leave a year. " * 9,
}
PLACES = {
    "runs": "runs",
    "no runs": "runs?text=nothing",
    "run with everything": "runs/everything",
    "what a model was asked": "runs/everything",
    "run under way": "runs/live",
    "run that waits": "runs/paused",
    "run that failed": "runs/failed",
    "run that cites": "runs/cited",
    "no such run": "runs/nobody",
    "chat": "chat/hello",
    "agents": "agents",
    "agent": "agents/hello",
    "documents": "documents/manual",
    "service": "service",
    "nowhere": "nowhere",
}


async def main(folder: Path) -> int:
    """Take them."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    wrong = 0
    with tempfile.TemporaryDirectory() as configs:
        definitions = write(Path(configs), hello=HELLO, broken=BROKEN, collections=SHELF.format(configs))
        async with serving(definitions) as served:
            await served.http.post("/v1/collections/manual/index", json={"documents": [LEAVE]})
            for state in STATES:
                for event in state():
                    served.service.store.record(event, source="service")
            await served.run()
            await served.service.store.flush()
            for screen, size in (("desktop", DESKTOP), ("phone", PHONE)):
                async with looking(served.url, viewport=size) as page:
                    for name, place in PLACES.items():
                        wrong += await picture(page, name, place, screen, folder)
    return 1 if wrong else 0


async def picture(page, name: str, place: str, screen: str, folder: Path) -> int:
    """Take the pictures of one place, and print what is wrong with it."""
    page.told.clear()
    await visit(page, place)
    await page.locator("main h1, main [role=alert]").first.wait_for()
    await page.wait_for_timeout(500)
    if name == "run with everything":
        await page.locator(".row", has_text="ask").first.click()
        await page.keyboard.press("ArrowRight")
    if name == "what a model was asked":
        await page.locator(".row.model").nth(2).click()
        await page.locator("details.request").wait_for()
    if name == "chat":
        await page.get_by_label("Question").fill("What is 17 * 23?")
        await page.keyboard.press("Enter")
        await page.get_by_text("answered", exact=True).wait_for()
    if name == "documents":
        await page.get_by_label("Question").fill("days of leave")
        await page.keyboard.press("Enter")
        await page.get_by_role("button", name="Leave").click()
        await page.locator("mark").wait_for()
    found = list(page.told) if name != "no such run" else []
    if await page.evaluate("document.documentElement.scrollWidth > innerWidth"):
        found.append("wider than the screen")
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        found += await violations(page)
        file = folder / f"{name.replace(' ', '-')}-{screen}-{scheme}.png"
        await page.screenshot(path=file, full_page=True)
    print(f"{name:22}{screen:10}{'nothing wrong' if not found else ''}", *found, sep="\n    " if found else "")
    return len(found)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]))))

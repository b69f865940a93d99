"""
Pictures of every state of the console, desktop and phone, light and dark, each looked through by axe.

`python -m bench.console_pictures DIR` serves runs that show each state, takes the pictures into the folder, and prints
what axe finds, what the page complained of, and what is wider than the screen. Exit code 1 where there is anything.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from shared_libs.atomic import Breaker, Deadline
from shared_libs.service.admission import Demand
from shared_libs.service.callers import ANYONE
from shared_libs.service.key_format import Key
from shared_libs.service.key_rows import KeyRow
from shared_libs.service.key_store import key_store
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
REFUSED = ("no such run", "sign in", "signed in wrongly")
"""Of these the browser itself notes that they were refused."""

SCREENS = {"desktop": DESKTOP, "phone": PHONE}


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
            for screen, size in SCREENS.items():
                async with looking(served.url, viewport=size) as page:
                    for name, place in PLACES.items():
                        wrong += await picture(page, name, place, screen, folder)
    return 1 if wrong + await guarded(folder) else 0


async def guarded(folder: Path) -> int:
    """Take those of a service with keys, one slot that is taken, a queue, and a breaker that is open."""
    wrong = 0
    with tempfile.TemporaryDirectory() as configs:
        definitions = write(Path(configs), hello=HELLO, service="slots: 1\n")
        keys = {team: Key.new() for team in ("ops", "lab")}
        for team, key in keys.items():
            row = KeyRow(id=key.id, hash=key.hash(""), team=team, budget_usd=2.0, requests_per_minute=60)
            await key_store("keys.yaml", definitions).keep(row)
        async with serving(definitions, key=str(keys["ops"])) as served, AsyncExitStack() as stack:
            service, loop = served.service, asyncio.get_running_loop()
            llm = service.catalogue.find(ANYONE, "hello").agent.llm
            for _ in range(5):
                llm.health.breaker.failed(Breaker(), loop.time())
            until = Deadline.after(600)
            demand = Demand(caller=ANYONE, target="hello", deadline=until)
            await stack.enter_async_context(service.admission.enter(demand))
            waiting = [asyncio.create_task(served.run(x_request_timeout="600")) for _ in range(3)]
            for screen, size in SCREENS.items():
                async with looking(served.url, viewport=size) as page:
                    wrong += await picture(page, "sign in", "service", screen, folder)
                    await page.get_by_label("Key").fill("gf_wrong")
                    await page.keyboard.press("Enter")
                    await page.get_by_role("alert").wait_for()
                    wrong += await picture(page, "signed in wrongly", "", screen, folder)
                    await page.get_by_label("Key").fill(str(keys["ops"]))
                    await page.keyboard.press("Enter")
                    await page.locator("nav").wait_for()
                    wrong += await picture(page, "busy service", "service", screen, folder)
            for task in waiting:
                task.cancel()
    return wrong


async def picture(page, name: str, place: str, screen: str, folder: Path) -> int:
    """Take the pictures of one place, and print what is wrong with it."""
    page.told.clear()
    if place:
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
    found = list(page.told) if name not in REFUSED else []
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

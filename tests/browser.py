"""A real Chromium that looks at pages, with axe in it; skipped with the reason where there is none."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from importlib.resources import files
from typing import Any, Self, TypeVar

import pytest

from tests.support import blocking_is_an_error

T = TypeVar("T")

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


class Chromium:
    """One that is started when a page is first looked at; each page has cookies, storage and permissions of its own."""

    def __init__(self) -> None:
        self._started = AsyncExitStack()
        self._browser: Any = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._started.aclose()

    @asynccontextmanager
    async def looking(self, url: str, **context: Any) -> AsyncIterator[Any]:
        """Open a page; whatever it says to the console, throws, or asks of another address is in `page.told`."""
        if self._browser is None:
            self._browser = await self._start()
        async with await self._browser.new_context(**{"viewport": DESKTOP, "base_url": url} | context) as opened:
            page = await opened.new_page()
            page.told = []
            own = (url, "about:", "data:", "blob:")
            page.on("console", lambda said: page.told.append(said.text) if said.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: page.told.append(str(error)))
            page.on("request", lambda asked: None if asked.url.startswith(own) else page.told.append(asked.url))
            page.set_default_timeout(10_000)
            yield page

    async def _start(self) -> Any:
        async_api = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
        chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if chromium is None:
            pytest.skip("no Chromium is installed: `apt-get install chromium`")
        playwright = await self._started.enter_async_context(async_api.async_playwright())
        # the sandbox wants another user than root; what is looked at is our own page
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        return await self._started.enter_async_context(browser)


@asynccontextmanager
async def looking(url: str, **context: Any) -> AsyncIterator[Any]:
    """Open a page in a Chromium of its own."""
    async with Chromium() as chromium, chromium.looking(url, **context) as page:
        yield page


class Browsing:
    """A Chromium that the tests of a module share, and the event loop on which it lives."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._chromium = Chromium()
        self.looking = self._chromium.looking

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run on its loop; a blocking call of ours there fails the test."""
        with blocking_is_an_error():
            return self._runner.run(main)

    def close(self) -> None:
        with self._runner:
            self._runner.run(self._chromium.__aexit__())


@pytest.fixture(scope="module")
def browser() -> Iterator[Browsing]:
    """Start a Chromium for a module; with the mark `xdist_group("browser")` there is one at a time."""
    with closing(Browsing()) as browsing:
        yield browsing


async def visit(page: Any, place: str) -> None:
    """Open a place of the console anew; merely another place of the page would leave the one before for a moment."""
    await page.goto("about:blank")
    await page.goto(f"/#/{place}")


async def violations(page: Any) -> list[str]:
    """Return what axe finds wrong with a page as it stands."""
    axe = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
    await page.evaluate(axe)  # by the debugger, whatever the page's policy allows
    found = await page.evaluate("axe.run()")
    return [
        f"{each['id']}: {node['target']} {node['failureSummary']}"
        for each in found["violations"]
        for node in each["nodes"]
    ]

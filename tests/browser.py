"""A real Chromium that looks at pages, with axe in it; skipped with the reason where there is none."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import pytest

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


@asynccontextmanager
async def looking(url: str, **context: Any) -> AsyncIterator[Any]:
    """Open a page; whatever it says to the console, throws, or asks of another address is in `page.told`."""
    async_api = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium is installed: `apt-get install chromium`")
    async with async_api.async_playwright() as playwright:
        # the sandbox wants another user than root; what is looked at is our own page
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            page = await browser.new_page(**{"viewport": DESKTOP, "base_url": url} | context)
            page.told = []
            own = (url, "about:", "data:", "blob:")
            page.on("console", lambda said: page.told.append(said.text) if said.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: page.told.append(str(error)))
            page.on("request", lambda asked: None if asked.url.startswith(own) else page.told.append(asked.url))
            page.set_default_timeout(10_000)
            yield page
        finally:
            await browser.close()


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

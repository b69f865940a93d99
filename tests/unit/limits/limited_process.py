"""
One of several processes that keep a limit together; prints how many attempts its calls took.

`python limited_process.py LLM_URL STORE_URL CALLS WINDOW_S MARGIN_S LIMIT`
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

from shared_libs.atomic import RateLimit, Resilience
from shared_libs.atomic.errors import LimitStoreError
from shared_libs.atomic.llms import OpenAILLM
from shared_libs.limits import SQLLimitStore


async def main(llm_url: str, store_url: str, calls: int, window_s: float, margin_s: float, limit: int) -> int:
    async with OpenAILLM("warm", base_url=llm_url, api_key="k") as llm:
        await llm.async_chat("x")  # loads what the first request needs; on a busy machine that takes seconds
    store = SQLLimitStore(store_url, window_s=window_s, margin_s=margin_s)
    for _ in range(
        20
    ):  # the store too: all make the table at once, and one may wait for longer than it does for others
        with suppress(LimitStoreError):
            await store.take("warm", RateLimit(requests_per_minute=1), 1)
            break
    policy = Resilience(retry={"attempts": 1}, rate_limit={"requests_per_minute": limit, "store": store})
    async with OpenAILLM("m", base_url=llm_url, api_key="k", resilience=policy) as llm:
        answers = await asyncio.gather(*(llm.async_chat("x", timeout=60) for _ in range(calls)))
    return sum(len(answer.attempts) for answer in answers)


if __name__ == "__main__":
    _, llm_url, store_url, calls, window_s, margin_s, limit = sys.argv
    attempts = asyncio.run(main(llm_url, store_url, int(calls), float(window_s), float(margin_s), int(limit)))
    sys.stdout.write(f"{attempts}\n")

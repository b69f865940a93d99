"""The virtual clock: jumps where nothing is to do, waits where something outside is waited for."""

from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import aiohttp
import pytest

from shared_libs.testing import FaultServer, Healthy, VirtualClock, real_time, run_virtual
from shared_libs.testing.clock import VirtualLoop


class _Slow(BaseHTTPRequestHandler):
    """Answers when it is told to."""

    def do_GET(self):
        self.server.asked.set()
        self.server.may_answer.wait(10)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


@pytest.fixture
def slow_server():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Slow) as server:
        server.asked, server.may_answer = threading.Event(), threading.Event()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.may_answer.set()
        server.shutdown()
        thread.join()


def test_hours_cost_nothing_and_timers_ring_in_their_order():
    async def main():
        rung = []
        loop = asyncio.get_running_loop()
        for delay_s in (7200, 0.25, 3600):
            loop.call_later(delay_s, rung.append, delay_s)
        await asyncio.sleep(10_000)
        return rung, loop.time()

    assert run_virtual(main()) == ([0.25, 3600, 7200], 10_000)


def test_a_timeout_ends_what_hangs():
    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 30)
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 30


def test_a_thread_is_waited_for_whatever_the_timers_say():
    may_end = threading.Event()

    def work():
        return may_end.wait(10)

    async def main():
        loop = asyncio.get_running_loop()
        job = asyncio.ensure_future(asyncio.to_thread(work))
        await asyncio.sleep(0)
        threading.Timer(0.05, may_end.set).start()
        assert await asyncio.wait_for(job, 9)
        return loop.held, loop.time()

    held, took_s = run_virtual(main())
    assert not held
    assert 0 < took_s < 9


def test_a_server_of_the_same_loop_is_reached_on_virtual_time():
    async def main():
        async with FaultServer({"m": Healthy("Hello.")}) as server, aiohttp.ClientSession() as client:
            body = {"model": "m", "messages": [{"role": "user", "content": "Hi."}]}
            await asyncio.sleep(1000)
            async with client.post(f"{server.url('openai', 'm')}/chat/completions", json=body) as answer:
                return (await answer.json())["choices"][0]["message"]["content"]

    assert run_virtual(main()) == "Hello."


def test_a_connection_to_outside_the_loop_is_refused_with_what_to_do(slow_server):
    async def main():
        async with aiohttp.ClientSession() as client:
            await client.get(f"http://127.0.0.1:{slow_server.server_port}/")

    with pytest.raises(RuntimeError, match=r"virtual clock.*`clock: real`.*real_time"):
        run_virtual(main())
    assert not slow_server.asked.is_set()


def test_a_connection_in_real_time_is_not_overtaken(slow_server):
    async def main():
        with real_time():
            async with aiohttp.ClientSession() as client:
                request = asyncio.ensure_future(client.get(f"http://127.0.0.1:{slow_server.server_port}/"))
                await asyncio.to_thread(slow_server.asked.wait, 10)
                slow_server.may_answer.set()
                async with await asyncio.wait_for(request, 9) as answer:
                    return await answer.text()

    assert run_virtual(main()) == "ok"


def test_real_time_on_the_real_clock_is_nothing():
    async def main():
        with real_time():
            await asyncio.sleep(0)
        return isinstance(asyncio.get_running_loop(), VirtualLoop)

    assert asyncio.run(main()) is False


def test_a_clock_sums_what_passed_by_it():
    clock = VirtualClock()
    clock.run(asyncio.sleep(3))
    clock.run(asyncio.sleep(4))
    assert clock.elapsed_s == 7

"""`configs/dispatcher.yaml` as it stands: PostgreSQL, HTTP, a sandbox and an MCP server, all real, in one run."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest
from aiohttp import web

from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.atomic.llms.scripted_llm import Turn
from shared_libs.factory import load_agent
from tests.postgres import own_name
from tests.test_definitions import CONFIGS

FILL = """
CREATE TABLE flights (name text PRIMARY KEY, airport text, leaves timestamptz);
INSERT INTO flights VALUES ('GA 12', 'EWR', '2013-06-03 14:00Z'), ('GA 7', 'JFK', '2013-06-03 14:30Z');
"""
WAIT = "rate = {wind} - 40\nprint(rate * 3)"


@pytest.fixture(scope="module")
def schedule(postgres):
    database, reader = own_name("dispatcher"), own_name("reader")
    owner = f"postgresql://owner@{postgres.replace('/postgres?', f'/{database}?', 1)}"

    async def fill():
        server = await asyncpg.connect(f"postgresql://owner@{postgres}")
        await server.execute(f"CREATE DATABASE {database}")
        await server.close()
        connection = await asyncpg.connect(owner)
        await connection.execute(FILL)
        await connection.execute(f"CREATE ROLE {reader} LOGIN")
        await connection.execute(f"GRANT SELECT ON flights TO {reader}")
        await connection.close()

    asyncio.run(fill())
    return owner.replace("owner@", f"{reader}@", 1)


async def weather(request):
    return web.json_response({"airport": request.query["airport"], "wind_knots": 47})


def last(messages):
    return [message.text for message in messages if message.role == "tool"]


def first_look(messages):
    return Turn(
        text="The schedule and the weather first.",
        calls=[
            ("sql", {"query": "SELECT name FROM flights WHERE airport = 'EWR' ORDER BY leaves"}),
            ("http", {"url": f"{first_look.url}/now?airport=EWR"}),
            ("convert_time", {"source_timezone": "UTC", "time": "14:00", "target_timezone": "Asia/Tokyo"}),
        ],
    )


def calculate(messages):
    wind = json.loads(last(messages)[1].split("\n\n", 1)[1])["wind_knots"]
    return Turn(text="Three minutes a knot above 40.", calls=[("python", {"code": WAIT.format(wind=wind)})])


def answer(messages):
    rows, _, converted, minutes = last(messages)
    (flight,) = json.loads(rows)["rows"][0]
    local = json.loads(converted)["target"]["datetime"][11:16]
    return f"{flight}, due at {local} in Tokyo, has to wait {minutes.strip()} minutes."


def test_sql_http_python_and_mcp_answer_together(schedule, monkeypatch):
    async def main():
        app = web.Application()
        app.router.add_get("/now", weather)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        first_look.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        monkeypatch.setenv("WEATHER_URL", first_look.url)
        monkeypatch.setenv("SCHEDULE_URL", schedule)
        agent = load_agent(CONFIGS / "dispatcher.yaml", llm=ScriptedLLM([first_look, calculate, answer]))
        try:
            async with agent:
                return await agent.async_run("Which flight of Newark has to wait, and how long?")
        finally:
            await runner.cleanup()

    result = asyncio.run(main())  # not on the watched loop: the drivers read files of their own
    assert result.answer == "GA 12, due at 23:00 in Tokyo, has to wait 21 minutes."
    assert result.status == "answered"
    assert [action.tool for step in result.steps for action in step.actions] == [
        "sql",
        "http",
        "convert_time",
        "python",
    ]
    assert not any(seen.is_error for step in result.steps for seen in step.observations)

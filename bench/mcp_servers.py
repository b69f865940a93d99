"""
Eight MCP servers that others wrote: listed and called, each of them killed, stopped and gone on with.

    pip install mcp-server-time mcp-server-git
    npm install --prefix /tmp/mcp @modelcontextprotocol/server-{everything,filesystem,memory,sequential-thinking} \\
        @upstash/context7-mcp firecrawl-mcp
    python -m bench.mcp_servers /tmp/mcp

The three parts: a run with four of them, one killed in the middle of a call; then each by itself, killed between two
calls, and stopped (SIGSTOP) under a call of two seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from shared_libs.agents import ReActAgent
from shared_libs.atomic.errors import ToolError
from shared_libs.atomic.events import ToolFinished, ToolStarted
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.tools.mcp import MCPToolset

LONG = "everything_trigger-long-running-operation"


def pid_of(words: str) -> int:
    """The server of ours whose command line has these words: the child of the guard that is our child."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if words in line and parent(parent(int(entry.name))) == os.getpid():
                return int(entry.name)
    raise LookupError(words)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def main(installed: str, folder: str) -> None:
    programs = Path(installed) / "node_modules" / ".bin"
    sources = [
        MCPToolset(command=["mcp-server-time"]),
        MCPToolset(command=["mcp-server-git"]),
        MCPToolset(command=[str(programs / "mcp-server-everything")], prefix="everything"),
        MCPToolset(command=[str(programs / "mcp-server-filesystem"), folder], prefix="files"),
    ]
    for source in sources:
        began = time.perf_counter()
        tools = await source.async_list()
        print(f"{source.name:24} {len(tools):3} tools, listed in {time.perf_counter() - began:.2f} s")
    model = ScriptedLLM(
        [
            Turn(
                calls=[
                    ("get_current_time", {"timezone": "Asia/Tokyo"}),
                    ("git_status", {"repo_path": folder}),
                    ("everything_get-sum", {"a": 2, "b": 3}),
                    ("everything_get-tiny-image", {}),
                    ("everything_get-structured-content", {"location": "New York"}),
                    ("files_read_text_file", {"path": f"{folder}/notes.txt"}),
                    ("files_read_text_file", {"path": "/etc/passwd"}),
                ]
            ),
            Turn(calls=[(LONG, {"duration": 60, "steps": 60}), ("get_current_time", {"timezone": "UTC"})]),
            Turn(calls=[("everything_get-sum", {"a": 20, "b": 3})]),
            "done",
        ]
    )
    began = time.perf_counter()

    def watch(event: object) -> None:
        if isinstance(event, ToolStarted) and event.tool == LONG:
            # while the call is under way
            asyncio.get_running_loop().call_later(0.5, lambda: os.kill(pid_of("server-everything"), signal.SIGKILL))
        if isinstance(event, ToolFinished):
            kind = "error" if event.is_error else "ok"
            print(f"{event.tool:44} {event.elapsed_s:6.3f} s  {kind:5} {' '.join(event.content.split())[:110]}")

    async with ReActAgent(llm=model, tools=sources, observers=[watch]) as agent:
        result = await agent.async_run("go", timeout=20)
    print(f"{result.status} in {result.elapsed_s:.2f} s; all closed after {time.perf_counter() - began:.2f} s")


THOUGHT = {"thought": "one", "nextThoughtNeeded": False, "thoughtNumber": 1, "totalThoughts": 1}


async def each(installed: str, folder: str) -> None:
    programs = Path(installed) / "node_modules" / ".bin"
    cases = [
        (["mcp-server-time"], "get_current_time", {"timezone": "UTC"}),
        (["mcp-server-git"], "git_status", {"repo_path": folder}),
        ([str(programs / "mcp-server-everything")], "get-sum", {"a": 2, "b": 3}),
        ([str(programs / "mcp-server-filesystem"), folder], "read_text_file", {"path": f"{folder}/notes.txt"}),
        ([str(programs / "mcp-server-memory")], "read_graph", {}),
        ([str(programs / "mcp-server-sequential-thinking")], "sequentialthinking", THOUGHT),
        ([str(programs / "context7-mcp")], "", {}),
        ([str(programs / "firecrawl-mcp")], "", {}),
    ]
    for command, called, arguments in cases:
        source = MCPToolset(command=command, env={"FIRECRAWL_API_KEY": "none"})
        source.timeout_s = 10
        began = time.perf_counter()
        try:
            tools = {tool.name: tool for tool in await source.async_list()}
            took_s, left_out = time.perf_counter() - began, len(source.left_out)
            line = f"{source.name:36} {len(tools):3} tools in {took_s:.2f} s, {left_out} left out"
            if called:
                line += f"; {await fates(tools[called], arguments, command[0].rpartition('/')[2])}"
        except ToolError as error:
            line = f"{source.name:36} {error}"
        finally:
            await source.aclose()
        print(line)


async def fates(tool: BaseTool, arguments: dict[str, object], program: str) -> str:
    first = await tool.async_run(arguments)
    os.kill(pid_of(program), signal.SIGKILL)
    await asyncio.sleep(0.2)
    renewed = [await tool.async_run(arguments) for _ in range(2)]
    stopped = pid_of(program)
    os.kill(stopped, signal.SIGSTOP)
    tool.timeout_s = 2
    slow = await tool.async_run(arguments)
    os.kill(stopped, signal.SIGCONT)
    tool.timeout_s = 10
    again = await tool.async_run(arguments)
    said = ["error" if result.is_error else "ok" for result in (first, *renewed, again)]
    return f"called {said[0]}; killed: {said[1]}, {said[2]}; stopped: back after {slow.elapsed_s:.2f} s, then {said[3]}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", metavar="FOLDER", help="where npm has put its servers")
    servers = parser.parse_args().servers
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "notes.txt").write_text("remember the milk\n")
        subprocess.run(["git", "init", "--quiet", folder], check=True)
        asyncio.run(main(servers, folder))
        asyncio.run(each(servers, folder))
    left = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=True
    )
    print("left behind:", [line for line in left.stdout.splitlines() if " ps " not in line] or "nothing")

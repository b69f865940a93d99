"""
What the clients are asked to do by `bench.faces`: a program for each, told `URL`, `ASK`, `world` and `hello`.

`hello` is an agent that answers `ASK` with its own calculator. `world` is one whose model calls every tool that its
client offers (`get_weather` twice in one turn), and answers what it sees with 391; asked for JSON it gives that number.
Each program leaves in `told` what it was answered: pairs of a name and a text that has 391 in it if all is well.
"""

from __future__ import annotations

CLIENTS = {
    "openai": """
import openai, pydantic
from openai import OpenAI
class Number(pydantic.BaseModel):
    number: int
client = OpenAI(base_url=URL + "/v1", api_key="none")
chat, told = client.chat.completions, []
asked = [{"role": "user", "content": "How is the weather?"}]
weather = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
for stream in (False, True):
    given = dict(model="world", messages=asked, tools=[weather])
    if stream:
        with chat.stream(**given) as events:
            message = events.get_final_completion().choices[0].message
    else:
        message = chat.create(**given).choices[0].message
    assert len(message.tool_calls) == 2
    results = [{"role": "tool", "tool_call_id": call.id, "content": "391"} for call in message.tool_calls]
    behind = asked + [message.model_dump(exclude_none=True)] + results
    done = chat.create(**given | {"messages": behind}).choices[0].message
    told.append(("parallel tools" + stream * ", streamed", done.content))
    flat = {"type": "function", "name": "get_weather", "parameters": WEATHER}
    if stream:
        with client.responses.stream(model="world", input="How is it?", tools=[flat]) as events:
            first = events.get_final_response()
    else:
        first = client.responses.create(model="world", input="How is it?", tools=[flat])
    calls = [item for item in first.output if item.type == "function_call"]
    outputs = [{"type": "function_call_output", "call_id": call.call_id, "output": "391"} for call in calls]
    assert len(outputs) == 2
    second = client.responses.create(model="world", input=outputs, tools=[flat], previous_response_id=first.id)
    told.append(("responses, parallel tools" + stream * ", streamed", second.output_text))
parsed = chat.parse(model="world", messages=asked, response_format=Number).choices[0].message.parsed
told.append(("parse()", str(parsed)))
parsed = client.responses.parse(model="world", input="x", text_format=Number).output_parsed
told.append(("responses.parse()", str(parsed)))
pixel = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + PIXEL}}
seen = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, pixel]}]
told.append(("image", chat.create(model="world", messages=seen).choices[0].message.content))
vector = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"]).data[1].embedding
told.append(("embeddings", "391" if len(vector) > 8 and isinstance(vector[0], float) else "none"))
background = client.responses.create(model="hello", input=ASK, background=True)
events = list(client.responses.retrieve(background.id, stream=True, starting_after=0))
told.append(("responses, background, resumed", events[-1].response.output_text))
told.append(("models", "391" if {"hello", "hello/chain"} <= {one.id for one in client.models.list()} else "no"))
""",
    "anthropic": """
from anthropic import Anthropic
client, told = Anthropic(base_url=URL, api_key="none"), []
asked = [{"role": "user", "content": "How is the weather?"}]
given = dict(model="world", max_tokens=99, tools=[{"name": "get_weather", "input_schema": WEATHER}])
for stream in (False, True):
    if stream:
        with client.messages.stream(messages=asked, **given) as events:
            first = events.get_final_message()
    else:
        first = client.messages.create(messages=asked, **given)
    calls = [block for block in first.content if block.type == "tool_use"]
    assert len(calls) == 2
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "391"} for call in calls]
    said = [{"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in first.content]}]
    second = client.messages.create(messages=asked + said + [{"role": "user", "content": results}], **given)
    told.append(("parallel tools" + stream * ", streamed", second.content[0].text))
source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
seen = [{"role": "user", "content": [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]}]
told.append(("image", client.messages.create(model="world", max_tokens=99, messages=seen).content[0].text))
import pydantic
class Number(pydantic.BaseModel):
    number: int
typed = client.messages.parse(model="world", max_tokens=99, messages=asked, output_format=Number)
told.append(("parse()", str(typed.parsed_output)))
count = client.messages.count_tokens(model="world", messages=seen).input_tokens
told.append(("count_tokens", "391" if count > 9 else ""))
""",
    "mcp": """
import asyncio
from mcp import Client
seen = []
async def heard(done, total, message):
    seen.append(message)
async def main():
    async with Client(URL + "/mcp") as client:
        said = (await client.call_tool("hello", {"question": ASK}, progress_callback=heard)).content[0].text
        typed = await client.call_tool("typed", {"question": "Which?"})
        return said, str(typed.structured_content)
said, typed = asyncio.run(main())
told = [("a tool that is an agent", said), ("typed", typed), ("progress", "391" if seen else "none was told")]
""",
    "llm": """
import os, pathlib, subprocess, sys, tempfile, llm
folder = tempfile.mkdtemp()
import base64
can = "  vision: true\\n  supports_tools: true\\n  supports_schema: true\\n"
models = [f"- model_id: {name}\\n  model_name: {name}\\n  api_base: {URL}/v1\\n{can}" for name in ("hello", "world")]
pathlib.Path(folder, "extra-openai-models.yaml").write_text("".join(models))
pathlib.Path(folder, "pixel.png").write_bytes(base64.b64decode(PIXEL))
tool = "def get_weather(city: str) -> str:\\n    return '391'"
env = os.environ | {"LLM_USER_PATH": folder, "OPENAI_API_KEY": "none"}
asks = {
    "streamed": ["hello", ASK],
    "whole": ["hello", ASK, "--no-stream"],
    "tools, streamed": ["world", "How is it?", "--functions", tool],
    "tools": ["world", "How is it?", "--functions", tool, "--no-stream"],
    "schema": ["world", "Which?", "--schema", "number int", "--no-stream"],
    "image": ["world", "What is it?", "-a", folder + "/pixel.png"],
}
told = []
for name, more in asks.items():
    done = subprocess.run([sys.executable, "-m", "llm", "-m", *more], env=env, capture_output=True, text=True)
    told.append((name, done.stdout + done.stderr[-200:]))
""",
    "pydantic_ai": """
import asyncio, base64, pydantic
from pydantic_ai import Agent, BinaryContent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
class Number(pydantic.BaseModel):
    number: int
told = []
async def main():
    for kind in (OpenAIChatModel, OpenAIResponsesModel):
        name, provider = kind.__name__, OpenAIProvider(base_url=URL + "/v1", api_key="none")
        agent = Agent(kind("hello", provider=provider))
        told.append((name, (await agent.run(ASK)).output))
        async with agent.run_stream(ASK) as stream:
            told.append((name + ", streamed", await stream.get_output()))
        tooled = Agent(kind("world", provider=provider))
        @tooled.tool_plain
        def get_weather(city: str) -> str:
            return "391"
        told.append((name + ", tools", (await tooled.run("How is it?")).output))
        async with tooled.run_stream("How is it?") as stream:
            told.append((name + ", tools, streamed", await stream.get_output()))
        shown = ["What is it?", BinaryContent(base64.b64decode(PIXEL), media_type="image/png")]
        told.append((name + ", image", (await Agent(kind("world", provider=provider)).run(shown)).output))
        typed = Agent(kind("world", provider=provider), output_type=Number)
        told.append((name + ", typed", str((await typed.run("Which?")).output)))
asyncio.run(main())
""",
    "langchain_openai": """
import pydantic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
class Number(pydantic.BaseModel):
    number: int
told = []
for responses in (False, True):
    name = "Responses" if responses else "chat"
    made = dict(base_url=URL + "/v1", api_key="none", use_responses_api=responses)
    model, world = ChatOpenAI(model="hello", **made), ChatOpenAI(model="world", **made)
    told.append((name, str(model.invoke(ASK).content)))
    told.append((name + ", streamed", "".join(str(chunk.content) for chunk in model.stream(ASK))))
    tooled = world.bind_tools([{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}])
    said = [HumanMessage("How is it?")]
    said.append(tooled.invoke(said))
    assert len(said[-1].tool_calls) == 2
    said += [ToolMessage("391", tool_call_id=call["id"]) for call in said[-1].tool_calls]
    told.append((name + ", tools", str(tooled.invoke(said).content)))
    chunks = list(tooled.stream("How is it?"))
    whole = sum(chunks[1:], chunks[0])
    told.append((name + ", tools, streamed", "391" if len(whole.tool_calls) == 2 else str(whole)))
    pixel = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + PIXEL}}
    shown = HumanMessage([{"type": "text", "text": "What is it?"}, pixel])
    told.append((name + ", image", str(world.invoke([shown]).content)))
    told.append((name + ", typed", str(world.with_structured_output(Number).invoke("Which?"))))
""",
    "litellm": """
import litellm, pydantic
class Number(pydantic.BaseModel):
    number: int
pixel = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + PIXEL}}
said = {"messages": [{"role": "user", "content": ASK}], "api_key": "none"}
chunks = litellm.completion(model="openai/hello", api_base=URL + "/v1", stream=True, **said)
whole = litellm.completion(model="openai/hello", api_base=URL + "/v1", **said)
other = litellm.completion(model="anthropic/hello", api_base=URL, max_tokens=50, **said)
told = [
    ("chat", whole.choices[0].message.content),
    ("chat, streamed", "".join(chunk.choices[0].delta.content or "" for chunk in chunks)),
    ("messages", other.choices[0].message.content),
    ("responses", str(litellm.responses(model="openai/hello", api_base=URL + "/v1", api_key="none", input=ASK).output)),
]
weather = [{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}]
for model, base in (("openai/world", URL + "/v1"), ("anthropic/world", URL)):
    given = dict(model=model, api_base=base, api_key="none", tools=weather, max_tokens=50)
    asked = [{"role": "user", "content": "How is it?"}]
    message = litellm.completion(messages=asked, **given).choices[0].message
    assert len(message.tool_calls) == 2
    results = [{"role": "tool", "tool_call_id": call.id, "content": "391"} for call in message.tool_calls]
    done = litellm.completion(messages=asked + [message.model_dump()] + results, **given)
    told.append((model + ", tools", done.choices[0].message.content))
    built = litellm.stream_chunk_builder(list(litellm.completion(messages=asked, stream=True, **given)))
    told.append((model + ", tools, streamed", "391" if len(built.choices[0].message.tool_calls) == 2 else str(built)))
    plain = {name: value for name, value in given.items() if name != "tools"}
    shown = [{"type": "text", "text": "What is it?"}, pixel]
    seen = litellm.completion(messages=[{"role": "user", "content": shown}], **plain)
    told.append((model + ", image", seen.choices[0].message.content))
    typed = litellm.completion(messages=asked, response_format=Number, **plain)
    told.append((model + ", typed", typed.choices[0].message.content))
""",
    "agents": """
import asyncio, pydantic
from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI
set_tracing_disabled(True)
class Number(pydantic.BaseModel):
    number: int
@function_tool
def get_weather(city: str) -> str:
    return "391"
client, told = AsyncOpenAI(base_url=URL + "/v1", api_key="none"), []
async def main():
    for kind in (OpenAIChatCompletionsModel, OpenAIResponsesModel):
        name, hello, world = kind.__name__, kind("hello", client), kind("world", client)
        tooled = Agent(name="tooled", model=world, tools=[get_weather])
        first = await Runner.run(tooled, "How is it?")
        told.append((name + ", tools", first.final_output))
        streamed = Runner.run_streamed(tooled, "How is it?")
        async for _ in streamed.stream_events():
            pass
        told.append((name + ", tools, streamed", streamed.final_output))
        behind = [*first.to_input_list(), {"role": "user", "content": ASK}]
        told.append((name + ", history", (await Runner.run(Agent(name="h", model=hello), behind)).final_output))
        typed = Agent(name="typed", model=world, output_type=Number)
        told.append((name + ", typed", str((await Runner.run(typed, "Which?")).final_output)))
asyncio.run(main())
""",
    "instructor": """
import anthropic, instructor, openai, pydantic
class Number(pydantic.BaseModel):
    number: int
told = []
client, modes = openai.OpenAI(base_url=URL + "/v1", api_key="none"), ("TOOLS", "JSON", "JSON_SCHEMA", "RESPONSES_TOOLS")
made = [(client, instructor.from_openai, mode, {}) for mode in modes]
other = anthropic.Anthropic(base_url=URL, api_key="none")
made.append((other, instructor.from_anthropic, "ANTHROPIC_TOOLS", {"max_tokens": 99}))
for client, wrap, mode, more in made:
    asked = dict(model="world", messages=[{"role": "user", "content": "Which? In JSON."}], max_retries=0)
    create = wrap(client, mode=getattr(instructor.Mode, mode)).chat.completions.create
    told.append((mode, str(create(response_model=Number, **asked, **more))))
""",
    "autogen_ext": """
import asyncio, pydantic
from autogen_agentchat.agents import AssistantAgent
from autogen_core.models import UserMessage
from autogen_ext.models.openai import OpenAIChatCompletionClient
class Number(pydantic.BaseModel):
    number: int
can = ("vision", "function_calling", "json_output", "structured_output", "multiple_system_messages")
info = dict.fromkeys(can, True) | {"family": "unknown"}
client = OpenAIChatCompletionClient(model="world", base_url=URL + "/v1", api_key="none", model_info=info)
async def get_weather(city: str) -> str:
    "The weather of a city."
    return "391"
told = []
async def main():
    for stream in (False, True):
        given = dict(tools=[get_weather], reflect_on_tool_use=True, model_client_stream=stream)
        agent = AssistantAgent("a", model_client=client, **given)
        told.append((f"agent, stream={stream}", (await agent.run(task="How is it?")).messages[-1].content))
    asked = [UserMessage(content="Which? In JSON.", source="user")]
    told.append(("typed", (await client.create(asked, json_output=Number)).content))
asyncio.run(main())
""",
    "patience": """
import json, time, urllib.request
from openai import OpenAI
client = OpenAI(base_url=URL + "/v1", api_key="none", timeout=1, max_retries=2)
began = time.monotonic()
answer = client.chat.completions.create(model="slow", messages=[{"role": "user", "content": ASK}])
took = time.monotonic() - began
runs = json.load(urllib.request.urlopen(URL + "/v1/runs?agent=slow"))
count = len(runs.get("runs") or runs.get("data") or runs.get("rows"))
finish, status = answer.choices[0].finish_reason, answer.factory["status"]
fine = (finish, status, count) == ("length", "partial", 1) and took < 1
told = [(f"timeout=1, agent of 3 s: {status} after {took:.2f} s, {count} run", "391" if fine else "")]
""",
}
"""`patience` is the SDK of OpenAI that gives up after a second, before an agent that needs three."""

"""
A small MCP server on stdio that can misbehave; standard library only, so that it starts at once.

Its arguments say how: `silent` never answers, `dead` ends at once, `slow-list` never lists, `banner` prints before the
protocol, `stubborn` ignores SIGTERM and the end of its input. It names what it has heard in the tool `heard`.
"""

import json
import os
import signal
import subprocess
import sys

MODES = sys.argv[1:]
HEARD = []
NAMES = [
    "echo",
    "silent",
    "die",
    "huge",
    "environment",
    "meta",
    "rich",
    "structured",
    "fails",
    "heard",
    "grow",
    "spawn",
]
SCHEMA = {
    "type": "object",
    "properties": {"text": {"$ref": "#/$defs/line"}, "size": {"type": "integer"}},
    "$defs": {"line": {"type": "string", "maxLength": 100}},
}


def send(**message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def text(words, **more):
    return {"content": [{"type": "text", "text": words}], **more}


def call(name, arguments, meta):
    if name == "echo":
        return text(arguments.get("text", ""))
    if name == "die":
        sys.stderr.write("out of luck, with key s3cret-key\n")
        sys.stderr.flush()
        os._exit(3)
    if name == "huge":
        return text("x" * arguments["size"])
    if name == "environment":
        return text(json.dumps(dict(os.environ)))
    if name == "meta":
        return text(json.dumps(meta))
    if name == "rich":
        blocks = [
            {"type": "text", "text": "a picture:"},
            {"type": "image", "data": "AAAA", "mimeType": "image/png"},
            {"type": "resource", "resource": {"uri": "file:///notes.txt", "text": "noted"}},
            {"type": "resource", "resource": {"uri": "file:///blob", "blob": "AAAA"}},
            {"type": "resource_link", "uri": "file:///far.txt", "name": "far"},
        ]
        return {"content": blocks}
    if name == "structured":
        return {"content": [], "structuredContent": {"answer": 42}}
    if name == "fails":
        return text("the shelf is empty", isError=True)
    if name == "heard":
        return text(json.dumps(HEARD))
    if name == "grow":
        NAMES.append("grown")
        send(method="notifications/tools/list_changed")
        return text("grown")
    if name == "spawn":  # the child holds the pipe named by $HELD open for as long as it lives
        held = os.open(os.environ["HELD"], os.O_WRONLY)
        code = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
        subprocess.Popen([sys.executable, "-c", code], pass_fds=(held,), stdout=subprocess.DEVNULL)
        return text("spawned")
    raise KeyError(name)


def tools():
    hints = {"echo": {"readOnlyHint": True}, "die": {"destructiveHint": True}}
    return [
        {"name": name, "description": f"does {name}", "inputSchema": SCHEMA, "annotations": hints.get(name, {})}
        for name in NAMES
    ]


def answer(request):
    method, params = request["method"], request.get("params", {})
    if method == "initialize":
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "raw", "version": "1"},
        }
    if method == "tools/list":
        if "slow-list" in MODES:
            return None
        if "odd-names" in MODES:
            return {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ("a.b", "a b", "é" * 70)]}
        if "bad-schema" in MODES:
            return {
                "tools": [
                    *tools(),
                    {"name": "odd", "inputSchema": {"type": "object", "properties": {"text": {"type": "words"}}}},
                ]
            }
        return {"tools": tools()}
    if method == "tools/call":
        if params["name"] == "silent":
            return None
        return call(params["name"], params.get("arguments", {}), params.get("_meta"))
    raise KeyError(method)


def main():
    if "dead" in MODES:
        sys.stderr.write("no licence found for s3cret-key\n")
        sys.exit(7)
    if "stubborn" in MODES:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "banner" in MODES:
        sys.stdout.write("Welcome!\n{}\nnull\n")
    for line in sys.stdin:
        request = json.loads(line)
        HEARD.append(request["method"])
        if "id" not in request or "silent" in MODES:
            continue
        try:
            result = answer(request)
        except KeyError as error:
            send(id=request["id"], error={"code": -32601, "message": f"unknown: {error}"})
        else:
            if result is not None:
                send(id=request["id"], result=result)
    while "stubborn" in MODES:
        signal.pause()


main()

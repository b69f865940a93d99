"""
An MCP server on stdio that says what it is told to say; standard library only, so that it starts at once.

Its argument is JSON, or `@` and a file of it: for each method the result, or `{"raw": "…"}`, the very text, in which
`$ID` is the request's id and `$ARGUMENTS` those of a call; null is silence. A list gives one result after
another, the last for good.
"""

import json
import sys
from pathlib import Path

SAYS = json.loads(Path(sys.argv[1][1:]).read_text() if sys.argv[1][0] == "@" else sys.argv[1])
INITIALIZED = {"capabilities": {"tools": {}}, "serverInfo": {"name": "scripted", "version": "1"}}

for line in sys.stdin:
    request = json.loads(line)
    method = request["method"]
    if "id" not in request:
        continue
    said = SAYS.get(method)
    if isinstance(said, list):
        said = said.pop(0) if len(said) > 1 else said[0]
    if method == "initialize":
        said = said or INITIALIZED | {"protocolVersion": request["params"]["protocolVersion"]}
    elif method not in SAYS:
        said = {"raw": '{"jsonrpc":"2.0","id":$ID,"error":{"code":-32601,"message":"unknown"}}'}
    if said is None:
        continue
    if "raw" in said:
        text = said["raw"].replace("$ID", json.dumps(request["id"])) + "\n"
    else:
        text = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": said}) + "\n"
    text = text.replace("$ARGUMENTS", json.dumps(json.dumps(request.get("params", {}).get("arguments")))[1:-1])
    sys.stdout.buffer.write(text.encode("latin-1" if "latin-1" in sys.argv else "utf-8", "surrogatepass"))
    sys.stdout.buffer.flush()

"""The http tool over TLS: whose certificate is asked for, where the address was looked up and checked by us."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys

import pytest
import trustme

from tests.support import run

TLS = """
import asyncio, sys
from shared_libs.tools.http_tool import HttpTool

async def here(host, port):
    return ["127.0.0.1"]

async def main(port):
    for host in ("good.example", "bad.example"):
        tool = HttpTool(allow=[f"{host}:{port}", f"127.0.0.1:{port}"], resolver=here)
        print((await tool.async_run({"url": f"https://{host}:{port}/"})).content.splitlines()[0])

asyncio.run(main(int(sys.argv[1])))
"""


@pytest.mark.promise("ssrf")
def test_tls_checks_the_name_and_not_the_address(tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("good.example").configure_cert(context)
    told = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(told)
        writer.close()

    async def main():
        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        environment = os.environ | {"SSL_CERT_FILE": str(tmp_path / "ca.pem")}
        async with server:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", TLS, str(port), env=environment, stdout=subprocess.PIPE
            )
            output, _ = await asyncio.wait_for(process.communicate(), 60)
        return port, output.decode().splitlines()

    port, (good, bad) = run(main())
    assert good == f"200 OK, text/plain, https://good.example:{port}/"
    assert bad.startswith("no answer from bad.example: its TLS certificate is not trusted (")
    assert "Hostname mismatch" in bad

"""
A real Bolt server for tests: ArcadeDB with its own Java, in a process of its own (pip install arcadedb-embedded).

`python -m tests.bolt_server PORT` prints a line when it is ready, and ends with its standard input.
"""

from __future__ import annotations

import os
import sys
import tempfile

PASSWORD = "playwithdata"


def main(port: int) -> None:
    import arcadedb_embedded

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["JAVA_TOOL_OPTIONS"] = f"-Xmx400m -Darcadedb.bolt.port={port} -Darcadedb.bolt.host=127.0.0.1"
        config = {
            "host": "127.0.0.1",
            "http_port": port + 1,
            "server_plugins": "Bolt:com.arcadedb.bolt.BoltProtocolPlugin",
        }
        server = arcadedb_embedded.create_server(root_path=folder, root_password=PASSWORD, config=config)
        server.start()
        server.create_database("neo4j")
        sys.stdout.write("\nready\n")  # its log may be in the middle of a line
        sys.stdout.flush()
        sys.stdin.read()
        os._exit(0)  # a Java machine that ends with Python's crashes


if __name__ == "__main__":
    main(int(sys.argv[1]))

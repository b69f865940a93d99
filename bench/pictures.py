"""
All pictures of what people see, in one folder: terminals, files of `factory trace --html`, every state of the console.

`python -m bench.pictures DIR`; `.ci/run` does so where `ARTIFACTS` names the folder that is kept. Exit code 1 where one
of them is wrong (`bench.file_pictures`, `bench.console_pictures`).
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from bench import console_pictures, file_pictures


async def main(folder: Path) -> int:
    """Take them."""
    return await file_pictures.main(folder / "files") | await console_pictures.main(folder / "console")


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]))))

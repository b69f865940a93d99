"""A worker in a process of its own, to be killed or stopped; its tools write down what they do, a line each."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading

from shared_libs.atomic import tool
from shared_libs.atomic.scope import current_scope
from shared_libs.durable import Worker, WorkerPolicy
from tests.unit.durable.cast import LEASE_S, agent, by_length, turn


def note(notes, *words):
    file = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, (" ".join(map(str, (os.getpid(), *words))) + "\n").encode())
    os.close(file)


def looker(notes, first_s, *, blocks=False):
    @tool
    async def look(amount: int) -> str:
        note(notes, "begun", current_scope().run_id, amount)
        if amount == 1 and blocks:
            threading.Event().wait(first_s)  # it blocks the loop on purpose
        else:
            await asyncio.sleep(first_s if amount == 1 else 0)
        note(notes, "ended", current_scope().run_id, amount)
        return f"saw {amount}"

    def model():
        return by_length(turn(("a", "look", {"amount": 1})), turn(("b", "look", {"amount": 2})), "done")

    return agent(model, [look])


async def main(url, notes, first_s, blocks):
    worker = Worker(url, looker(notes, float(first_s), blocks=blocks == "blocks"), policy=WorkerPolicy(lease_s=LEASE_S))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.drain)
    await worker.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

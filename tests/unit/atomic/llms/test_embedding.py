"""Texts cut into the requests that a server takes."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from shared_libs.atomic.errors import BadRequest
from shared_libs.atomic.llms.embedding import AT_ONCE, in_parts
from tests.support import run_virtual

TEXTS = [str(number) for number in range(25)]


class Server:
    """Takes so many texts at once, and says so where it gets more."""

    def __init__(self, takes, *, told=True):
        self.takes, self.known = takes, takes if told else None
        self.sizes, self.now, self.most_at_once = [], 0, 0

    async def embed(self, texts):
        self.sizes.append(len(texts))
        self.now += 1
        self.most_at_once = max(self.most_at_once, self.now)
        await asyncio.sleep(5 - len(self.sizes) % 3)
        self.now -= 1
        if len(texts) > self.takes:
            self.known = self.takes
            raise BadRequest("too many")
        return np.array([[float(text)] for text in texts], dtype=np.float32)


@pytest.mark.parametrize(("takes", "told", "sizes"), [(10, True, [10, 10, 5]), (10, False, [25, 10, 10, 5])])
def test_texts_are_split_as_the_server_takes_them_and_keep_their_order(takes, told, sizes):
    server = Server(takes, told=told)
    rows = run_virtual(in_parts(TEXTS, lambda: server.known, server.embed))
    assert rows[:, 0].tolist() == [float(text) for text in TEXTS]
    assert server.sizes == sizes


def test_only_a_few_requests_are_on_their_way_at_once():
    server = Server(1)
    run_virtual(in_parts(TEXTS, lambda: server.known, server.embed))
    assert server.most_at_once == AT_ONCE


def test_the_failure_of_one_ends_the_others():
    server = Server(1)

    async def embed(texts):
        if texts == ["3"]:
            raise BadRequest("no")
        return await server.embed(texts)

    async def main():
        with pytest.raises(BadRequest, match="no"):
            await in_parts(TEXTS, lambda: server.known, embed)
        return len(asyncio.all_tasks())

    assert run_virtual(main()) == 1
    assert len(server.sizes) < len(TEXTS)


def test_a_limit_that_does_not_shrink_is_no_reason_to_ask_again():
    async def embed(_):
        raise BadRequest("no")

    with pytest.raises(BadRequest):
        run_virtual(in_parts(TEXTS, lambda: None, embed))

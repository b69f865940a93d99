"""Structured output on its way back: an answer that does not fit its schema is sent back once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from shared_libs.atomic.errors import MalformedResponse
from shared_libs.atomic.llms.request import Request
from shared_libs.atomic.llms.structured import InvalidOutput, OutputSchema
from shared_libs.atomic.resilience.attempt import Model, ModelCall
from shared_libs.atomic.resilience.chain import run_chain
from shared_libs.atomic.resilience.policy import Resilience
from shared_libs.atomic.types import LLMResponse

M = TypeVar("M", bound=Model)


async def fitted(
    routes: Sequence[tuple[M, Resilience]],
    request: Request,
    output: OutputSchema,
    call: ModelCall[LLMResponse],
    first: tuple[LLMResponse, M],
) -> tuple[LLMResponse, M]:
    """
    Return the answer as its schema reads it (`parsed`), and the model that gave it.

    Raises:
        LLMError: nobody answered the second time, or what came does not fit either.

    """
    response, model = first
    try:
        return msgspec.structs.replace(response, parsed=output.parse(response.text)), model
    except InvalidOutput as error:
        problem = str(error)
    call.listener.restart(f"the answer does not fit its schema: {problem}")
    request.messages = [*request.messages, *output.repair(response.message, problem)]
    request.tools = ()  # without them every provider that can holds the model to the schema
    response, model = await run_chain(routes, call)
    try:
        return msgspec.structs.replace(response, parsed=output.parse(response.text)), model
    except InvalidOutput as error:
        wrong = MalformedResponse(
            f"the answer of {model.provider}/{model.model} does not fit its schema, twice: {error}",
            provider=model.provider,
            model=model.model,
            retryable=False,
        )
        wrong.attempts, wrong.causes = tuple(call.attempts), tuple(call.causes)
        raise wrong from None

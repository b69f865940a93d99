"""The YAML of an agent as pydantic models: its keys, their types and bounds, and the words an editor shows."""

from __future__ import annotations

import ast
import inspect
import math
import sys
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Duration = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]


@cache
def _attribute_words(module: str) -> dict[str, dict[str, str]]:
    """What a module says below the attributes of its classes, by class and attribute."""
    try:
        read = ast.parse(inspect.getsource(sys.modules[module]))
    except OSError:  # installed without its source
        return {}
    return {
        one.name: {
            above.target.id: inspect.cleandoc(below.value.value)
            for above, below in pairwise(one.body)
            if isinstance(above, ast.AnnAssign) and isinstance(above.target, ast.Name)
            if isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        }
        for one in read.body
        if isinstance(one, ast.ClassDef)
    }


class Section(BaseModel):
    """A mapping of the YAML: no key too many, no value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        # as `use_attribute_docstrings` would, which looks for the source of each class anew: 65 ms of every command
        words = _attribute_words(cls.__module__).get(cls.__qualname__, {})
        for name in cls.model_fields.keys() & words:
            cls.model_fields[name].description = words[name]

    def given(self) -> dict[str, Any]:
        """Return what was written, without what was left to its default."""
        return self.model_dump(exclude_unset=True)


class OpenSection(Section):
    """A mapping whose further keys belong to what it names; the registry knows them."""

    model_config = ConfigDict(extra="allow")

    def __repr_args__(self) -> Any:
        # its further keys hold secrets
        return [(name, getattr(self, name)) for name in type(self).model_fields]


class PriceSpec(Section):
    """US dollars per million tokens."""

    input: Dollars
    """Dollars per million input tokens."""
    output: Dollars
    """Dollars per million output tokens."""
    cached_input: Dollars | None = None
    """Dollars per million input tokens read from the provider's cache; by default as much as fresh ones."""
    cache_write: Dollars | None = None
    """Dollars per million input tokens written to the provider's cache; by default as much as fresh ones."""
    hour_cache_write: Dollars | None = None
    """The same for those kept there for an hour; by default as much as the others that are written."""


class LinkCommon(Section):
    """What a model of the chain may have; which of it is optional, its provider's constructor says."""

    model: Text
    """The model's name at the provider."""
    api_key: str
    """The key, best as "${VARIABLE:-}"; a model whose key is empty is left out while another one remains."""
    base_url: str
    """Where the API is, when not at the provider's own address; an empty one is none."""
    price: PriceSpec | None
    """What the model costs; without it the table prices.yaml is asked, for the provider's own address."""
    options: dict[str, Any]
    """Request fields sent with every call, as the provider names them: temperature, max_tokens, ..."""


class LinkAttributes(Section):
    """What every model of the chain may have, whatever its provider."""

    context_window: Count | None
    """How many tokens fit into the model; a conversation too long for it is not sent to a smaller one."""


class LinkSpec(OpenSection):
    """A model of the chain."""

    provider: str
    """Who serves the model."""


class RetrySpec(Section):
    """How often a model is asked again."""

    attempts: Count = 5
    """Tries, the first included."""
    base_s: Duration = 1.0
    """The first wait in seconds; each further one doubles, and the real wait is drawn between zero and that."""
    max_s: Duration = 8.0
    """The longest wait of ours, in seconds; a provider's Retry-After is not capped by it."""


class BreakerSpec(Section):
    """When a model is left alone."""

    failures: Count = 5
    """Failed attempts that open the circuit."""
    reset_s: Seconds = 30.0
    """Seconds until one probe is let through."""


class RateLimitSpec(Section):
    """How much of a model may be used; null means no limit."""

    requests_per_minute: Count | None = None
    """Requests in a minute."""
    tokens_per_minute: Count | None = None
    """Tokens in a minute."""
    concurrency: Count | None = None
    """Requests at the same time, in one process."""
    store: Annotated[Text | None, Field(repr=False)] = None
    """Where processes count requests and tokens together: a URL as in memory; null: each counts its own."""

    @field_validator("store")
    @classmethod
    def _has_something_to_share(cls, store: str | None, info: ValidationInfo) -> str | None:
        if store is not None and not any(info.data.get(f"{what}_per_minute", True) for what in ("requests", "tokens")):
            raise ValueError("there is nothing to share; give requests_per_minute or tokens_per_minute as well")
        return store


class PolicySpec(Section):
    """What is done when a model fails or is slow."""

    strategy: Literal["sequential", "hedged", "race"] = "sequential"
    """sequential: the next model when one has failed; hedged: also when it is late; race: all at once."""
    retry: RetrySpec = RetrySpec()
    """How often a model is asked again."""
    breaker: BreakerSpec = BreakerSpec()
    """When a model is left alone."""
    rate_limit: RateLimitSpec | None = None
    """How much of a model may be used."""
    hedge_after_s: Duration | None = None
    """Seconds without a first token after which hedged starts the next model; null: what is usual for the model."""
    attempt_timeout_s: Seconds = 30.0
    """Seconds one attempt may take."""
    first_token_timeout_s: Seconds = 10.0
    """Seconds a stream may take until its first token."""
    idle_timeout_s: Seconds = 10.0
    """Seconds a stream may pause between two tokens."""


class LLMSpec(PolicySpec):
    """The model: a chain, its first link the primary and the rest fallbacks; one model may stand here itself."""

    chain: Annotated[list[LinkSpec], Field(min_length=1)]
    """The models, in the order in which they are asked."""

    def policy(self) -> dict[str, Any]:
        """Return what was written of the policy."""
        return self.model_dump(exclude_unset=True, exclude={"chain"})


class ToolsetCommon(Section):
    """What every source of tools may have, for each of its tools; all of it is optional."""

    timeout_s: Seconds
    """Seconds one call may take."""
    sequential: bool
    """Whether calls of one turn run one after the other."""
    needs_approval: bool
    """Whether a person decides before each call."""
    max_observation_chars: Count
    """A longer result is cut, with a note."""


class ToolCommon(ToolsetCommon):
    """What every tool may have; all of it is optional."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    """What the model calls the tool (letters, digits, '_', '-'): by default its own name; needed for a second."""
    description: Text
    """What the model reads about the tool; by default what the tool says itself."""
    isolation: Literal["loop", "thread", "process"]
    """Where calls run; process: a worker that is killed with all it has started when the time is over."""
    memory_limit_mb: Count | None
    """Megabytes one call may use beyond what its worker process has; needs isolation process."""
    cpu_limit_s: Seconds | None
    """Seconds of CPU time one call may use; needs isolation process."""


class ToolSpec(OpenSection):
    """A tool of the agent, with its options."""

    use: str
    """Which tool."""


class CompactSpec(Section):
    """When the older part of a conversation is summed up by a model; also in the middle of a run."""

    max_tokens: Count = 8_000
    """How long a conversation may get, in tokens (estimated)."""
    keep: Count = 10
    """How many of the newest messages stay as they are, where the tokens allow it."""
    timeout_s: Seconds = 20.0
    """Seconds a summary may take."""
    llm: LinkSpec | None = None
    """The model that sums up; by default the agent's own."""


class MemorySpec(Section):
    """Where conversations are kept."""

    url: Annotated[str, Field(min_length=1, repr=False)] = "memory:"
    """memory: (this process), sqlite:///file.db or postgresql://user@host/database."""
    window: Count | None = None
    """How many of the newest messages a run loads; null: all."""
    pool_size: Count = 10
    """How many connections to a database are open at the same time."""
    on_outage: Literal["error", "queue"] = "error"
    """error: a database that does not answer fails the store; queue: up to 1,000 messages wait in this process."""
    embedder: LinkSpec | None = None
    """A model with embeddings; messages are then searched by meaning, else by their words."""
    compact: CompactSpec | None = None
    """Sum up what a run has no room for; without it, that is left out."""


class CollectionSpec(Section):
    """Documents that tools may search; `factory index PATH --collection NAME` fills it."""

    url: Annotated[str, Field(min_length=1, repr=False)] = "sqlite:///collections.db"
    """Where it is kept: sqlite:///file.db or postgresql://user@host/database."""
    vectors: Annotated[str | None, Field(min_length=1, repr=False)] = None
    """Where its vectors are kept instead: qdrant://host:6333, qdrants://KEY@host:6333 or a folder, qdrant:///folder."""
    graph: Annotated[str | None, Field(min_length=1, repr=False)] = None
    """Where its graph is kept instead: bolt://user:password@host:7687/database, neo4j:// or neo4j+s://."""
    tenant: Text = "default"
    """Whose it is; collections of two tenants of the same name are two."""
    embedder: LinkSpec | None = None
    """A model with embeddings; null: searched by words only. By default local-embeddings, where that is installed."""
    reranker: LinkSpec | None = None
    """A model that orders the best passages anew, such as {provider: rerank, model: …}; without it nobody does."""
    extract: list[LinkSpec] = []
    """Models that read entities and relations out of passages, all at once; the first valid answer is taken."""
    chunk_tokens: Annotated[int, Field(ge=8)] = 200
    """Tokens a passage may have."""


class LibrarySpec(Section):
    """The collections alone, for who fills them and needs no agent."""

    collections: dict[Text, CollectionSpec] = {}
    """Documents that tools may search, by name."""


class LimitsSpec(Section):
    """What one run may use; null means no bound."""

    timeout_s: Seconds = 60.0
    """Seconds of wall clock for everything: memory, model, tools, the last word, cleanup."""
    reserve_s: Duration = 5.0
    """Seconds of those kept for the last word; at most a quarter of the time is."""
    max_steps: Count = 10
    """Turns of the model with tools."""
    max_tool_calls: Annotated[int, Field(ge=0)] | None = 20
    """Tool calls of all steps together."""
    max_tokens: Count | None = None
    """Input and output tokens of all model calls together."""
    max_cost_usd: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """US dollars of all model calls together; counts answers whose cost is known."""
    max_repeats: Count = 5
    """How often the same call may end in the same observation."""

    @field_validator("reserve_s")
    @classmethod
    def _below_timeout(cls, reserve_s: float, info: ValidationInfo) -> float:
        timeout_s = info.data.get("timeout_s", math.inf)
        if reserve_s >= timeout_s:
            raise ValueError(f"{reserve_s:g} leaves nothing of timeout_s, {timeout_s:g}; allowed: less than that")
        return reserve_s


class DurableSpec(Section):
    """How durable runs of the agent stand in the queue."""

    concurrency: Count | None = None
    """How many of them go on at once, over all workers; null: as many as the workers take."""
    priority: int = 0
    """Those of a higher one begin first."""


class AgentSpec(Section):
    """An agent: who it is, which model thinks, what it may do, what it remembers and how long it may take."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    """The agent's name: letters, digits, '.', '_' and '-'."""
    description: str = ""
    """What the agent is for, in a sentence."""
    instructions: str = ""
    """The owner's words to the model."""
    llm: LLMSpec | None = None
    """The model and its fallbacks."""
    tools: list[ToolSpec] = []
    """What the agent may do."""
    collections: dict[Text, CollectionSpec] = {}
    """Documents that tools may search, by name."""
    memory: MemorySpec | None = None
    """Where conversations are kept; without it nothing is."""
    limits: LimitsSpec = LimitsSpec()
    """What one run may use."""
    output_schema: dict[str, Any] | None = None
    """A JSON Schema that every answer has to fit: it is validated, and sent back once where it does not."""
    protocol: Literal["auto", "native", "text"] = "auto"
    """native tool calling, text ReAct (Thought, Action, Observation), or auto: what the model can."""
    durable: bool | DurableSpec = False
    """Whether runs outlive their process: they stand in a queue, and workers do them (factory submit, worker)."""

"""
What this project promises: behaviour id → what is promised, and where the promise comes from.

Every test of a promise cites its id with `@pytest.mark.promise("id")`; `tests/test_house.py` checks that every id here
is cited and every cited id is here.
"""

from __future__ import annotations

from typing import NamedTuple


class Requirement(NamedTuple):
    """A promise and its source."""

    promise: str
    source: str


REQUIREMENTS: dict[str, Requirement] = {
    "no-harm": Requirement(
        "installed beside a project, the package changes nothing there: its own `shared_libs`, its scenario files, its "
        "plugins and options",
        "issue: foreign text, cases H4 and A6",
    ),
    "docs-run": Requirement(
        "every block of code in README and docs runs, holds or is understood; the site builds without a dead link",
        "issue 13, point 7",
    ),
    "two-names": Requirement(
        "every module is importable as `genai_factory.X`, and is the same object as `shared_libs.X`", "contract"
    ),
    "asks-as-told": Requirement(
        "what a server does not take is learnt from its refusal: asked at once otherwise, booked as a request of its "
        "own, and no failure of the model",
        "issue: real model servers",
    ),
    "time-total": Requirement(
        "the total time is bounded by the deadline, whatever the retries",
        "openai-python #3828; litellm, two hung models",
    ),
    "time-orphans": Requirement(
        "after the run ended no tool speaks or acts unnoticed: it is listed in still_running", "pydantic-ai #3960"
    ),
    "time-freed": Requirement(
        "A run is freed when it ends and is let go of: nothing of it waits for the collector.",
        "issue 10: the collector is 40 % of a step at 1,000 at once",
    ),
    "time-threads": Requirement(
        "timed-out sync tools leave a bounded number of threads, and the process still exits", "pydantic-ai #4883"
    ),
    "time-fence": Requirement(
        "a tool call that was given up can no longer write to the run: its events, its memory writes, its budget",
        "pydantic-ai #3960",
    ),
    "forks": Requirement(
        "in a forked child tools, the watchdog and observers work, and what the parent had is left whole",
        "gunicorn #1666, celery #10339",
    ),
    "loop-rescued": Requirement(
        "async code that blocks the loop is interrupted at its limit, or before any run of the loop is late", "contract"
    ),
    "loop-watched": Requirement(
        "code that blocks the event loop is named once per blockage, with its tool and its stack", "contract"
    ),
    "time-process": Requirement(
        "a tool in a process of its own ends at its limit with all it has started, and its death is an observation",
        "contract",
    ),
    "time-reserve": Requirement(
        "before the deadline the model gets one last word without tools; else the run is partial with what it saw",
        "contract",
    ),
    "leaves": Requirement(
        "results, events and messages leave as json, pydantic and FastAPI take them, described, and come back",
        "people.md A9",
    ),
    "shown": Requirement("what is printed of an agent and its parts is readable, and holds no secret", "people.md B"),
    "resume-done": Requirement(
        "three parallel approvals are three decisions, and a resume never runs a finished tool again",
        "langgraph #6624, #6208, #5952",
    ),
    "wire-read": Requirement(
        "whatever real model servers put on the wire is read right, or is an error that says what came",
        "contract; tests/wire_cases",
    ),
    "written-read": Requirement(
        "reasoning and calls that a model writes into its text are read as what they are; prose about them stays prose",
        "hermes-agent #742; case agents A2",
    ),
    "attempt-moment": Requirement(
        "an attempt ends at the moment that the reason it tells names", "core review: idle under first token"
    ),
    "attempt-fenced": Requirement(
        "an attempt that was given up is heard no more: after `restarted` only the next one speaks", "core review"
    ),
    "adapter-checked": Requirement(
        "whatever an adapter gives or raises fails its attempt and nothing else; the chain goes on", "core review"
    ),
    "health-own": Requirement(
        "what is known of a model is known by key, and holds over the loops and threads of a process", "core review"
    ),
    "journal-once": Requirement(
        "what a journal has recorded of a run is never done again, and what was in flight has the same key",
        "docs/journal.md",
    ),
    "durable-once": Requirement(
        "of a durable run nothing is lost and nothing that is recorded is done again, whenever its worker is killed; "
        "what was in flight is done once more for each death, by the same key",
        "docs/durable.md; dbos-transact-py #688, #714; langgraph #8039, #8764",
    ),
    "durable-fence": Requirement(
        "a worker that has lost a run writes nothing, begins no effect, and tells nobody that the run has ended",
        "docs/durable.md; procrastinate #1518",
    ),
    "durable-takeover": Requirement(
        "the runs of a worker that is dead or stopped are another's after its lease; one that only blocks its loop "
        "keeps them",
        "docs/durable.md; langgraph #7213, deer-flow #1087",
    ),
    "durable-queue": Requirement(
        "priorities, delays and limits hold over all workers, and what none of them can do tells why", "docs/durable.md"
    ),
    "durable-scheduled": Requirement(
        "what a schedule submits is submitted once each time it is due, by the clock of its zone, and once when nobody "
        "worked meanwhile",
        "docs/durable.md",
    ),
    "durable-seen": Requirement(
        "the command line says who holds which durable run since when, what it waits for, and ends or decides it from "
        "any process",
        "docs/durable.md; deer-flow #1087",
    ),
    "serve-durable": Requirement(
        "a durable run asked over HTTP is answered by the deadline from the store whatever becomes of its worker, and "
        "is followed, decided and cancelled by its id at any server",
        "docs/durable.md; temporal sdk-python #1660",
    ),
    "deploy-valid": Requirement(
        "the manifests hold in old and new clusters, and what they say is what the programs understand",
        "docs/deploying.md",
    ),
    "deploy-safe": Requirement(
        "pods are nobody, write nowhere and hold no secret; liveness is the loop and never the database",
        "docs/deploying.md",
    ),
    "durable-approval": Requirement(
        "a decision is taken by run id alone, by any process, at any time, and counts once; what waits holds no slot",
        "docs/durable.md; temporal sdk-python #1660, langgraph #6208",
    ),
    "durable-cancel": Requirement(
        "a run is cancelled from any process within two seconds, and its result says what was done", "pydantic-ai #7197"
    ),
    "durable-drain": Requirement(
        "a worker told to end claims nothing more, cuts nothing off that ends in time, and hands its runs over",
        "docs/durable.md",
    ),
    "durable-away": Requirement(
        "a store that is not there is told before a model is asked; one that goes away and comes back costs no run",
        "docs/durable.md; pydantic-ai #6620, dbos-transact-py #716",
    ),
    "durable-followed": Requirement(
        "a run is followed from any process: every event once and in order, pieces of text while they come, whatever "
        "becomes of the line",
        "docs/durable.md; temporal sdk-python #1009, dbos-transact-py #562",
    ),
    "durable-kept": Requirement(
        "the store grows by what is new, holds nothing but JSON, and lets go of what ended long ago",
        "docs/durable.md; temporal sdk-python #1890, langgraph #6661",
    ),
    "opened": Requirement(
        "`aopen` makes model, memory and tools ready; nothing large is loaded on the event loop, and a store that is "
        "down shows there",
        "tried as new users would",
    ),
    "work-bounded": Requirement(
        "what comes from outside, and what grows, has a bound on its size and on the work it makes", "house rule"
    ),
    "secrets-masked": Requirement(
        "a secret of a known shape or under a telling name is in no log, record or picture of a run",
        "security review M5, M6",
    ),
    "tools-own": Requirement(
        "functions, methods and types as people have them become tools, or are refused with the reason at construction",
        "PraisonAI #402, llama_index #17324, fastmcp #3036, google-adk #6488, #6877, #7190",
    ),
    "results-whole": Requirement(
        "what a tool returned reaches the model with all it says (index, rows, text), the same for the same value",
        "git-pandas #56, gramex #709, autogen #5900, agent-framework #2219",
    ),
    "schema-bounded": Requirement(
        "no JSON Schema and no value, whoever wrote them, raises in a run or keeps the event loop for 50 ms",
        "letta #3285; hermes-agent #101804; security review H1",
    ),
    "why-slow": Requirement(
        "the time of every run is parted without a rest, and what it went on is said in words, as is each slow answer",
        "case people A10, B; issue 16",
    ),
    "runs-kept": Requirement(
        "a run is in the store with all that was told of it, whichever process wrote it; none of yesterday's is lost",
        "case people A1, A2; issue 16",
    ),
    "runs-found": Requirement(
        "runs are found by who, when, how they ended and what words they hold, in pages that nothing falls between",
        "case people A10; docs/runs.md",
    ),
    "runs-followed": Requirement(
        "a run is followed until its end in whatever process it is; one whose process is gone is told from it",
        "docs/runs.md",
    ),
    "runs-contents": Requirement(
        "without contents no word of a user, a model or a tool is kept, and names, times and reasons are",
        "docs/runs.md",
    ),
    "runs-sent": Requirement(
        "where contents are kept, so is what each model was asked: whole, told once however long the run, secrets "
        "masked; nobody else hears of it, and without contents nothing is done for it",
        "docs/runs.md",
    ),
    "runs-saved": Requirement(
        "a run that was kept is saved as a scenario, and as a cassette, which play again to the same answer",
        "docs/cassettes.md",
    ),
    "run-file": Requirement(
        "a run is drawn as one file by the console's own module: it asks nobody, opens without a server, shows what "
        "models were asked, and is drawn without a script where none runs",
        "docs/observability.md",
    ),
    "runs-never-wait": Requirement(
        "a store that is slow or away holds up no run and grows by nothing; what it loses is counted and told",
        "docs/runs.md",
    ),
    "retry-once": Requirement("attempts on the wire equal the configured attempts", "code_puppy #317"),
    "retry-fit": Requirement(
        "a Retry-After that does not fit the remaining time fails over at once", "eight peers, measured"
    ),
    "retry-silent": Requirement("a silent model is not tried again while a fallback is left", "contract"),
    "hedge-late": Requirement("the next model starts when the first token is late; losers are cancelled", "contract"),
    "limit-kept": Requirement("our own limits are kept in any minute, in the order of deadlines", "litellm #40291"),
    "limit-shared": Requirement(
        "processes with one store keep a limit together, in any minute as the server sees it", "contract"
    ),
    "limit-alone": Requirement("without its store a process keeps the limit for itself, and says so once", "contract"),
    "cost-true": Requirement(
        "a cost sums the answers at the price of the model that gave each; unknown is unknown and not zero", "contract"
    ),
    "deps": Requirement(
        "a tool that declares it gets what its run was given, in threads too; no model sees it or can give it",
        "contract",
    ),
    "own-engine": Requirement("the memory works on the application's own engine, and leaves it open", "people.md B"),
    "database-urls": Requirement(
        "memory, limits, runs and sql take an address as every platform gives it, and repeat no password",
        "people.md A12",
    ),
    "tables-ahead": Requirement("a role that may make no tables uses those that were made ahead", "people.md B"),
    "by-name": Requirement("a model may be told by its name, and a wrong name says the nearest", "people.md B"),
    "dicts": Requirement(
        "a policy is taken as a dict wherever it stands, and refused where it is wrong", "people.md A11"
    ),
    "output-partial": Requirement(
        "an agent with an output_schema returns at its deadline what fits, and says what is missing", "contract"
    ),
    "output-fits": Requirement("structured output fits its schema, is repaired once, or is an error", "contract"),
    "breaker-probe": Requirement("a half-open breaker lets exactly one probe through", "purgatory, asyncbreaker"),
    "filter-reported": Requirement("a content-filter refusal is reported, never routed around", "contract"),
    "stream-restart": Requirement(
        "a stream cut in the middle ends in the full text behind a restarted event, or in an error", "litellm #27967"
    ),
    "stream-bytes": Requirement(
        "a stream cut at any byte ends in the full answer or a clean error, never in a truncated success",
        "litellm #27967, #26015",
    ),
    "fault-matrix": Requirement(
        "every fault of the catalogue, in every format, streamed and not, ends in a whole answer or a typed error; the "
        "ledger is what the server saw, the rule that decided is visible, and only the answer is billed",
        "docs/faults.md",
    ),
    "replay-true": Requirement(
        "what was recorded of a model replays with the same answers, failures, attempts and times", "issue: scenarios"
    ),
    "replay-named": Requirement(
        "a prompt, tool or option that is not as recorded is named: entry, message, line, schema path",
        "issue: scenarios",
    ),
    "cassette-secrets": Requirement("no secret stands in a cassette", "issue: scenarios"),
    "provider-ids": Requirement(
        "a conversation begun with one provider goes on with another: ids and reasoning are rewritten for it",
        "openclaw #24900; vercel/ai #13055",
    ),
    "history-valid": Requirement(
        "whatever interrupts a writer, the next run can use the history", "letta #3250; openai-agents #4615"
    ),
    "compaction-pairs": Requirement(
        "trimming or summing up never splits a tool call from its result, and works in the middle of a run",
        "openclaw #4839; open-webui #27599",
    ),
    "db-outage": Requirement(
        "an outage of the memory store is a typed error, or a queue within a bound; memory does not grow",
        "langgraph #5675, litellm #12685",
    ),
    "writers": Requirement("two writers on one session lose nothing", "google-adk #4751, #917"),
    "sql-safe": Requirement(
        "the sql tool cannot write, attach, read files or run for ever, enforced by the database", "mcp sqlite servers"
    ),
    "ssrf": Requirement(
        "the http tool refuses private, loopback, link-local, metadata, IPv6-mapped, redirect and DNS-rebinding "
        "targets unless allowed",
        "pydantic-ai GHSA-2jrp-274c-jhv3, GHSA-cg7w-rg45-pc59; CVE-2026-2286",
    ),
    "budget-shared": Requirement(
        "steps, tool calls, tokens and cost of a sub-agent count on the run that called it", "contract"
    ),
    "python-safe": Requirement(
        "a snippet of the python tool has no files, no network, no environment, and ends within its limits",
        "langchain CVE-2023-29374",
    ),
    "yaml-safe": Requirement(
        "hostile YAML (tags, dotted paths, bombs, surrogates) is refused with a clear error", "google-adk #5278, #5531"
    ),
    "config-told": Requirement(
        "every problem of a definition is one line: place, key, what is allowed, the nearest name; all come at once",
        "contract",
    ),
    "secrets-kept": Requirement("no value of a variable stands in an error of a definition", "contract"),
    "no-cross": Requirement("concurrent runs on one agent object do not touch each other", "agno #3120"),
    "react-parse": Requirement(
        "text ReAct is read without Thought, in fences, in several languages, with partial JSON", "llama_index #22563"
    ),
    "loop-guard": Requirement("repeated identical calls are told to the model and then stopped", "nanobot #2298"),
    "cancel-wins": Requirement("a cancellation from outside always wins and is raised as such", "house rule 7"),
    "run-returns": Requirement("what happens inside a run ends in its result and is not raised", "contract"),
    "order-kept": Requirement("observations stand in the order of their calls, however the tools end", "contract"),
    "metrics": Requirement(
        "Prometheus sees runs, attempts, tools and the loop in series that nobody outside can multiply",
        "litellm #27272",
    ),
    "otel": Requirement(
        "a run is spans by the GenAI conventions, with right parents in tools and requests; none stays open",
        "tracing-close",
    ),
    "given-up-unpaid": Requirement("a tool call that was given up asks no model any more", "the simulation, seed 5387"),
    "limits-exact": Requirement("every limit of a run is kept exactly", "contract"),
    "time-told-on": Requirement(
        "a model's server is told how long its answer is waited for, a little less than it is",
        "issue: the service; gRPC deadlines",
    ),
    "tools-taken": Requirement(
        "no schema of a tool makes a provider refuse a request: what is told fits all, what is checked is as given",
        "langchain-mcp-adapters #137; notion-mcp-server #340, freee-mcp #15, ogx #3004, claude-code #586",
    ),
    "mcp-items": Requirement(
        "what an MCP server lists or returns is taken item by item: one odd part costs itself alone, and is told",
        "hermes-agent #101804, claude-code #88049, agent-os #2020",
    ),
    "time-mcp": Requirement(
        "a silent MCP server ends as a tool error within its timeout; a cancelled call tells the server",
        "strands harness-sdk #4403",
    ),
    "face-client-tools": Requirement(
        "a client's own tools on an agent: its calls pause the run, their results go on with it, or are history",
        "issue: the service; LibreChat #12002",
    ),
    "face-fields": Requirement(
        "every model of a chain gets the fields of a request in its own provider's words", "issue: the service"
    ),
    "face-chat": Requirement(
        "agents and chains are models of chat completions: streamed folds to unstreamed, a chain gets every field, an "
        "agent names what it ignores",
        "issue: the service; litellm #32607, vmlx #219",
    ),
    "face-errors": Requirement(
        "what is refused is an error of the client's own SDK, with its status, field and wait", "issue: the service"
    ),
    "face-streams": Requirement(
        "a stream never merely ends: it has the provider's end, or an error in it", "litellm #33404, bifrost #5665"
    ),
    "face-messages": Requirement(
        "agents and chains are models of Anthropic's messages API, by its own SDK: tools, images, usage from the start",
        "issue: the service; litellm #39703",
    ),
    "face-vectors": Requirement(
        "embeddings as floats and base64, and rerankers in their shapes, in and out", "text-embeddings-inference #288"
    ),
    "face-responses": Requirement(
        "responses follow OpenAI's event grammar whatever a run does, and can be followed, resumed, cancelled and "
        "answered to by the team that began them",
        "codex #24973, litellm #40243",
    ),
    "face-responses-kept": Requirement(
        "a response is had again after a restart and by the other servers of a service, by its team; a store that does "
        "not answer costs no response",
        "issue: the service",
    ),
    "face-mcp": Requirement(
        "every agent and every collection is a tool of an MCP server, with progress; a rebound name is not answered",
        "issue: the service",
    ),
    "face-patience": Requirement(
        "an SDK gets a partial answer before it gives up, and its retry joins the run it repeats",
        "issue: the service (must show 9)",
    ),
    "face-gone": Requirement(
        "a client that goes takes its run and the request to the model with it", "litellm #13774, #37140"
    ),
    "loop-per-client": Requirement("two asyncio.run calls in a row on one object both work", "pydantic-ai #748"),
    "chunks-exact": Requirement(
        "a chunk is what stands at its place of the stored text, nothing but white space is left out, and none is over "
        "its budget",
        "chonkie #29, #37, #84, #116, #629; Yuxi #634",
    ),
    "index-once": Requirement(
        "indexing again doubles nothing and costs nothing, and an edit costs its own chunks",
        "neo4j-graphrag #393, #221; ragas #2036; graphrag #741, #360",
    ),
    "index-partial": Requirement(
        "a chunk or document that fails loses no other, is named, and is done by the next indexing; a document is "
        "indexed only when all of it is in every index",
        "LightRAG #2080, #2081, #1566; ZotSeek #53; metagraphed #2102; SocratiCode #156",
    ),
    "index-embedder-checked": Requirement(
        "embeddings are checked in number, width and finiteness before any is stored", "gaia #3860"
    ),
    "index-delete": Requirement(
        "what is deleted or replaced is unseen at once, and leaves every index, also after a crash",
        "llama_index #19459, #16388, #19460; LightRAG #985, #2442, #3835",
    ),
    "index-model-change": Requirement(
        "vectors of two models never meet: another model is refused, and a rebuild runs beside and switches at once",
        "open-webui #11279; R2R #861; qmd #501; LightRAG #3213",
    ),
    "index-killed": Requirement(
        "an indexing that is killed anywhere is finished by the next one: nothing lost, doubled or half seen",
        "issue: retrieval and graph",
    ),
    "index-progress": Requirement(
        "an indexing tells how far it is, and is bounded in what it does at once", "graphiti #290, #1262, #1516"
    ),
    "store-away": Requirement(
        "a store that is cut off, emptied or replaced is told in a sentence, leaves nothing half there, and comes back "
        "by itself or by the next indexing",
        "issue: retrieval and graph",
    ),
    "retrieval-filter": Requirement(
        "a filter gives as many hits as there are, and none that does not fit",
        "pgvector #751; honcho #1048; akb #212",
    ),
    "retrieval-tenants": Requirement(
        "no method of a store works without a tenant, and texts of two tenants never meet",
        "Cogtrix #317; ragflow #19389; LightRAG #2373, #3631",
    ),
    "retrieval-inert": Requirement(
        "questions, filters and names are data: none of them becomes a part of a statement",
        "LightRAG #2849; mcp-neo4j #285; graphify #84",
    ),
    "retrieval-unseen": Requirement(
        "what no reader of a document sees is not stored, so no model is told it", "issue: retrieval and graph"
    ),
    "retrieval-foreign": Requirement(
        "a document that gives orders is a passage like others, marked as foreign, and its own citations do not count",
        "issue: retrieval and graph",
    ),
    "retrieval-languages": Requirement(
        "texts of languages without spaces, and words typed without their marks, are found",
        "issue: retrieval and graph",
    ),
    "retrieval-stages": Requirement(
        "a branch or a reranker that fails or is late leaves the others' answer, and every answer tells its stages",
        "ragflow #18269; hindsight #3168; gbrain #3421; nestjs-agentic #132",
    ),
    "retrieval-deadline": Requirement(
        "a retrieval is back in its time whatever hangs, and steps are left out in a stated order",
        "memory-lancedb-pro #882",
    ),
    "retrieval-loop": Requirement(
        "stores of this process compute in threads, never on the event loop, and bear many at once",
        "qdrant-client #615, #1328, #1193; aorta #444",
    ),
    "library-does-not-load": Requirement(
        "a library that is installed and cannot be loaded here is one sentence: what, why and what to do; what can do "
        "without it goes on",
        "kglite beside OpenMP on glibc: cannot allocate memory in static TLS block",
    ),
    "extra-missing": Requirement(
        "what wants a library of an extra that is missing says in one sentence which, and what pip installs it with; "
        "that is an ImportError as well",
        "people.md A5 A8; the sql tool on PostgreSQL was `ok` for `factory check` and failed in the run",
    ),
    "retrieval-plans": Requirement(
        "a statement reads what its parameters stand for once, whatever plan a server makes, and not for each row",
        "issue: retrieval and graph; pgvector at 1,000 chunks took 90 ms",
    ),
    "qdrant-apart": Requirement(
        "one collection of Qdrant holds everybody's vectors, kept apart by an index; filters hold also where it cannot "
        "compare",
        "issue: retrieval and graph",
    ),
    "graph-one-name": Requirement("all spellings of a name are one entity, by one key", "LightRAG #1323, #495, #3562"),
    "graph-expands": Requirement(
        "what hits by words and the question mention leads to further passages, and the answer tells by what",
        "issue: retrieval and graph",
    ),
    "graph-forgets": Requirement(
        "what a chunk has told goes with it, entities with their last mention; writing it twice doubles nothing",
        "LightRAG #985, #2442, #3835; neo4j-graphrag #393",
    ),
    "graph-hubs": Requirement(
        "an entity that stands everywhere neither floods an answer nor slows it",
        "hindsight #895, #911, #2592; LightRAG #691",
    ),
    "graph-reads-only": Requirement(
        "a query reads and does nothing else, sees its own collection only, and is bounded in rows and time",
        "CodeGraphContext #883, #1727; mcp-neo4j #296; neo4j-graphrag #520",
    ),
    "extract-races": Requirement(
        "of several models that read a text the first valid answer wins; the others are cancelled and booked",
        "issue: retrieval and graph",
    ),
    "extract-losers-cost": Requirement(
        "what the losers of a race used and cost is told and settled; of those that were cut off what was sent to them",
        "issue: retrieval and graph",
    ),
    "extract-once": Requirement(
        "a chunk is read once by an extractor, and what failed is read by the next time", "LightRAG #155, #2528"
    ),
    "citations-checked": Requirement(
        "a citation names a document and characters, its quote stands there, and what names nothing seen is taken out",
        "ragflow #7232, #8594, #12005",
    ),
    "http-collections": Requirement(
        "collections over HTTP: documents go in, cited passages come out, in time, and what is asked wrongly is told",
        "issue: retrieval and graph",
    ),
    "http-tenants": Requirement(
        "what one team keeps over HTTP no other finds, under whatever name", "Cogtrix #317, ragflow #19389"
    ),
    "http-graph": Requirement(
        "a graph over HTTP: models are probed and read texts, what is told of chunks is kept, queries only read",
        "issue: retrieval and graph",
    ),
    "serve-answers": Requirement(
        "`factory serve` offers every agent of a folder over HTTP, whole or as a stream, without a key, a database "
        "or a server of anybody's",
        "issue: the service",
    ),
    "serve-refuses": Requirement(
        "what is refused says why, what is allowed and whether to come back; nothing that is sent makes a 5xx",
        "issue: the service",
    ),
    "serve-deadline": Requirement(
        "an answer leaves before its client gives up, as far as its headers tell how long that is",
        "openai-python: read timeout 600 s, three runs of one agent",
    ),
    "serve-keys": Requirement(
        "every route but four needs a key, and without keys nobody but this machine is served",
        "CVE-2026-49468, CVE-2026-12795; litellm 1.108",
    ),
    "serve-reload": Requirement(
        "definitions are reloaded as one; a broken file keeps what it gave and shows; runs keep their definition",
        "litellm#40761, #30772, #20409",
    ),
    "serve-bounded": Requirement(
        "headers, bodies and readers that are slow or without end cost a bounded time and memory",
        "litellm#26193, sse-starlette#89",
    ),
    "serve-resumes": Requirement(
        "a run is followed from any event on, while it goes on, after its end and after a restart, up to its end",
        "aegra#472, #461; agno#9893",
    ),
    "serve-forgets": Requirement(
        "a session is forgotten over HTTP, with what is kept of its runs, and nothing else is",
        "issue 14: what operators are asked for by law",
    ),
    "serve-disconnect": Requirement(
        "a client that leaves is noticed in every phase, and what becomes of its run is a stated policy",
        "litellm#13774, #37140; adk-python#4029",
    ),
    "serve-once": Requirement(
        "a request that comes again, by an SDK's retry or under a key, is done once and answered twice",
        "openai-python: one agent executed three times",
    ),
    "serve-approves": Requirement(
        "a run that waits for a person goes on with the decision, here or after a restart, and once",
        "issue: the service; langgraph #6624",
    ),
    "console-page": Requirement(
        "the console is three small files that ask their own service alone, built from their source to the same bytes",
        "issue: the console; gateway 6",
    ),
    "console-shows": Requirement(
        "runs and conversations are seen and steered on the page as they happen, by keyboard and screen reader too",
        "issue: the console; langfuse#10581; adk-web#307",
    ),
    "console-hostile": Requirement(
        "whatever a user, model or tool has said, nothing of it runs on the page and nothing of it freezes the page",
        "issue: the console; langfuse#9933, #1352; KohakuTerrarium#176",
    ),
    "console-session": Requirement(
        "a browser's key is in a cookie that no script reads, and counts for requests of the page alone",
        "issue: the console; gateway 6",
    ),
    "serve-oidc": Requirement(
        "a token that the identity provider signed for this service opens what its claims say; its absence is 503",
        "issue: the service",
    ),
    "serve-drains": Requirement(
        "SIGTERM: not ready at once, what is under way ends inside a stated time, and nothing is cut off before",
        "issue: the service; litellm#14334, llm-gateway#2326",
    ),
    "budgets-exact": Requirement(
        "no number of requests or processes passes a budget, and what a dead process held comes back",
        "issue: the service (must show 7); litellm#26672, #33325",
    ),
    "budgets-leased": Requirement(
        "a server takes what is asked often from a lease, which passes no limit, serves through an outage, and is "
        "given back when it is not used or another is refused for want of it",
        "issue: the service; doorman; gateway 5.3",
    ),
    "rates-told": Requirement(
        "what is left of a key's minute is in the headers of each answer, as OpenAI's and Anthropic's clients read it",
        "issue: the service; gateway 3.5",
    ),
    "budgets-refuse": Requirement(
        "a key and its team are bound on every face; a refusal names limit, spent, reserved and when to come back",
        "issue: the service; litellm#27735, #18730, PR #29191; bifrost#2873",
    ),
    "budgets-outage": Requirement(
        "while the ledger is away requests go on from a bounded allowance, then 503, and all is booked afterwards",
        "issue: the service; litellm#34929",
    ),
    "keys-safe": Requirement(
        "of a key only a keyed hash is kept, which opens nothing; guessing is slow and asks no store",
        "GHSA-69x8-hrgq-fjj8, CVE-2026-42208",
    ),
    "keys-kept": Requirement(
        "keys are made, listed, rotated and revoked, in a file or a database, and servers know within seconds",
        "issue: the service",
    ),
    "audit-kept": Requirement(
        "who did what with keys, definitions, runs and collections is noted in rows that follow from each other; what "
        "is changed, removed or cut off is found",
        "issue: the service; gateway 7",
    ),
    "keys-outage": Requirement(
        "trouble with the store of keys is 503 and never 401; keys that were read go on for five minutes",
        "litellm PR #29986, #34479, #38121",
    ),
    "keys-teams": Requirement(
        "runs, sessions and decisions of one team answer 404 to another, on every route", "frontmcp GHSA-84j6-jc92-77jm"
    ),
    "admit-overload": Requirement(
        "at twice the capacity at least nine tenths of it do useful work, and nothing admitted is late by queueing",
        "issue: the service; sre.google, handling overload",
    ),
    "admit-fair": Requirement(
        "a key with a hundred times the load costs another at most one service time", "issue: the service"
    ),
    "admit-feasible": Requirement(
        "what cannot come in time is refused at once, with the reason and when to come back", "litellm#21553, #14801"
    ),
    "admit-lag": Requirement(
        "a process whose loop is late each time refuses sheddable work, then all that is not critical, with 503 and "
        "when to come back; it is alive and not ready, and takes all again when it is in time",
        "issue: the service; gateway 5.2; sre.google, handling overload",
    ),
    "metrics-service": Requirement(
        "slots, queues, refusals by code, limits of teams and shedding are figures with labels that cannot grow",
        "issue: the service; gateway 5.2; litellm PR #27272",
    ),
    "admit-slots": Requirement(
        "slots follow a provider's refusals and never its answers' length, and none is lost", "issue: the service"
    ),
    "typed": Requirement(
        "mypy --strict and pyright take a program that uses everything, and find each wrong use where it stands",
        "issue: builders, operators, testers",
    ),
}

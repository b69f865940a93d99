"""The graph: one key for all spellings, facts that go with their chunks, and queries that only read."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import subprocess
import sys

import pytest

from shared_libs.atomic import MisuseError
from shared_libs.atomic.errors import RetrievalError, RetrievalUnavailable
from shared_libs.retrieval import Collection, open_stores
from shared_libs.retrieval.cypher_guard import ReadQuery, read_query
from shared_libs.retrieval.naming import canonical, possible_names
from shared_libs.retrieval.stores import graphs
from shared_libs.retrieval.stores.sqlite_database import Database
from shared_libs.retrieval.stores.sqlite_documents import SqliteDocuments
from shared_libs.retrieval.stores.sqlite_graph import SqliteGraph
from shared_libs.retrieval.types import Entity, Facts, Relation, Space
from tests.bolt_server import PASSWORD
from tests.support import run
from tests.unit.retrieval.conftest import CountingEmbedder, document, indexed

OURS, THEIRS = Space(tenant="acme", collection="c"), Space(tenant="globex", collection="c")
needs_kglite = pytest.mark.skipif(importlib.util.find_spec("kglite") is None, reason="needs kglite")


needs_bolt = pytest.mark.skipif(
    importlib.util.find_spec("arcadedb_embedded") is None, reason="needs a Bolt server: pip install arcadedb-embedded"
)


@pytest.fixture(scope="session")
def bolt_url():
    """A real Bolt server, in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.bolt_server", str(port)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert "ready\n" in iter(process.stdout.readline, "")
        yield f"bolt://root:{PASSWORD}@127.0.0.1:{port}/neo4j"
        process.stdin.close()


@pytest.fixture(params=["sqlite", pytest.param("bolt", marks=[needs_bolt, pytest.mark.xdist_group("bolt")])])
def graph(request, tmp_path):
    if request.param == "bolt":
        graph = open_stores(graph=request.getfixturevalue("bolt_url")).graph
        graph.timeout_s = 60.0  # a server that has just begun

        async def emptied():
            for space in (OURS, THEIRS):
                await graph.async_drop(space)

        run(emptied())
        return graph
    database = Database(tmp_path / "c.db")

    async def made():
        for space in (OURS, THEIRS):
            await SqliteDocuments(database).async_create(space, None)

    run(made())
    return SqliteGraph(database)


def facts(chunk, *names, relations=(), extractor="x"):
    return Facts(
        chunk=chunk,
        entities=tuple(Entity(name=name, type="thing") for name in names),
        spans=tuple((0, len(name)) for name in names),
        relations=tuple(Relation(source=a, kind=kind, target=b) for a, kind, b in relations),
        extractor=extractor,
    )


def ids(expanded):
    return [row.id for row in expanded]


@pytest.mark.promise("graph-one-name")
def test_twelve_spellings_are_one():
    spellings = [
        "Acme Corp.",
        "ACME Corporation",
        "The Acme Corp",
        "acme",
        "Acmé",
        "ＡＣＭＥ Inc.",
        "Acme, Inc.",
        "A.C.M.E.",
    ]
    spellings += ["acme  gmbh", "Acme-Corp", "«Acme» Ltda.", "ACME S.A."]
    assert {canonical(name) for name in spellings} == {"acme"}
    assert canonical("阿里巴巴有限公司") == canonical("阿里巴巴") == "阿里巴巴"
    assert canonical("Công ty TNHH") != ""
    assert {
        canonical(name) for name in ("Công ty Cổ phần FPT", "Công ty TNHH MTV FPT", "FPT JSC", "Tổng công ty FPT")
    } == {"fpt"}
    assert (
        canonical("Petróleo Brasileiro S/A")
        == canonical("Petroleo Brasileiro Sociedade Anônima")
        == "petroleo brasileiro"
    )
    assert canonical("Siemens Aktiengesellschaft") == canonical("Siemens AG")
    assert len({canonical(name) for name in ("Ford", "Fort", "Ford Focus", "公司")}) == 4
    assert canonical("...") == ""


@pytest.mark.promise("graph-one-name")
@pytest.mark.parametrize(
    "different",
    [
        ("C", "C++", "C#"),
        ("バラ", "パラ", "ハラ"),
        ("ปา", "ป่า", "ปู"),
        ("राम", "रोम", "रमा"),
        ("ম", "মা"),
        ("AT&T", "AT"),
    ],
)
def test_what_differs_by_more_than_spelling_stays_apart(different):
    assert len(set(map(canonical, different))) == len(different)


@pytest.mark.promise("graph-one-name")
@pytest.mark.parametrize(
    "same",
    [
        ("AT&T", "AT and T", "A.T. & T."),
        ("GPT-4", "GPT 4", "GPT4"),
        ("3M", "3 M"),
        ("日立", "株式会社日立", "日立株式会社", "㈱日立"),
        ("삼성", "(주)삼성", "주식회사 삼성", "삼성 주식회사"),
        ("ООО Ромашка", "«Ромашка»"),
        ("الكويت", "الكـــويت", "الكُوَيْت"),
    ],
)
def test_spellings_of_other_scripts_are_one_too(same):
    assert len(set(map(canonical, same))) == 1


@pytest.mark.promise("graph-expands")
@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("삼성전자는 어디에?", "삼성전자"),
        ("กรุงเทพอยู่ที่ไหน", "กรุงเทพ"),
        ("Is IBM there?", "IBM"),
        ("and 3M", "3M"),
        ("Do they use C++ or C#?", "C#"),
    ],
)
def test_a_name_is_found_without_spaces_and_if_it_is_short(question, name):
    assert canonical(name) in possible_names(question)


def test_names_are_found_in_questions():
    names = possible_names("What did Ada Lovelace write for Charles Babbage's engine?")
    assert {"ada lovelace", "lovelace"} <= set(names)
    assert "阿里巴巴" in possible_names("谁创立了阿里巴巴？")
    assert possible_names("a b c") == possible_names("") == []


@pytest.mark.promise("graph-expands")
def test_seeds_and_names_lead_to_further_chunks(graph):
    async def main():
        assert await graph.async_expand(OURS, "Ada", ["a"]) == []
        await graph.async_upsert(
            OURS,
            [
                facts(
                    "a",
                    "Ada Lovelace",
                    "Analytical Engine",
                    relations=[("Ada Lovelace", "wrote for", "Analytical Engine")],
                ),
                facts("b", "Ada Lovelace", "London"),
                facts("c", "Analytical Engine", "Charles Babbage"),
                facts("d", "Paris"),
            ],
        )
        assert set(ids(await graph.async_expand(OURS, "nothing known", ["a"]))) == {"b", "c"}
        by_name = await graph.async_expand(OURS, "Where was ada lovelace?", [])
        assert set(ids(by_name)[:2]) == {"a", "b"}
        assert "Ada Lovelace" in by_name[0].via
        assert "c" in ids(by_name)  # by the relation, at less weight
        assert await graph.async_expand(OURS, "Paris", []) == await graph.async_expand(OURS, "PARIS?", [])
        assert await graph.async_expand(THEIRS, "Ada Lovelace", ["a"]) == []

    run(main())


@pytest.mark.promise("graph-forgets")
def test_facts_go_with_their_last_chunk_and_a_second_writing_doubles_nothing(graph):
    async def main():
        for _ in range(3):
            await graph.async_upsert(OURS, [facts("a", "Ada", "London"), facts("b", "Ada")])
        assert await graph.async_extracted(OURS, ["a", "b", "c"], "x") == {"a", "b"}
        assert await graph.async_extracted(OURS, ["a"], "another") == set()
        await graph.async_delete(OURS, ["a"])
        assert ids(await graph.async_expand(OURS, "London", [])) == []
        assert ids(await graph.async_expand(OURS, "adas Ada Ada?", [])) == []  # too short a name to be looked for
        await graph.async_upsert(OURS, [facts("b", "Byron House")])
        assert ids(await graph.async_expand(OURS, "Byron House", [])) == ["b"]
        await graph.async_drop(OURS)
        assert await graph.async_extracted(OURS, ["b"], "x") == set()

    run(main())


@pytest.mark.promise("graph-hubs")
def test_an_entity_that_stands_everywhere_drowns_nobody(graph):
    async def main():
        await graph.async_upsert(OURS, [facts(f"h{at:05}", "Everywhere") for at in range(3_000)])
        await graph.async_upsert(OURS, [facts("seed", "Everywhere", "Rarely"), facts("wanted", "Rarely")])
        found = await graph.async_expand(OURS, "Everywhere Rarely", ["seed"])
        assert found[0].id == "wanted"
        assert len(found) <= 60

    run(main())


@pytest.mark.promise("graph-expands")
def test_a_graph_adds_passages_that_share_no_word_with_the_question(file_url):
    collection = Collection("c", tenant="acme", stores=file_url, embedder=CountingEmbedder())

    async def main():
        await indexed(
            collection,
            [
                document("a", "Pelican project: led by Maria Silva."),
                document("b", "Maria Silva sits in room 12."),
                document("z", "Other."),
            ],
        )
        stored = {row.source: row.chunk for row in await collection.stores.documents.async_seen(collection._space)}
        assert not (await collection.async_describe()).graph
        await collection.stores.graph.async_upsert(
            collection._space, [facts(stored["a"].id, "Maria Silva", "Pelican"), facts(stored["b"].id, "Maria Silva")]
        )
        answer = await collection.async_retrieve("pelican project", k=5)
        hit = next(hit for hit in answer.hits if hit.source == "b")
        assert hit.via == ("Maria Silva",)
        assert {stage.name: stage.state for stage in answer.stages}["graph"] == "ok"
        assert "graph" not in {stage.name for stage in (await collection.async_search("pelican")).stages}
        await collection.async_remove("b")
        assert "b" not in [hit.source for hit in (await collection.async_retrieve("Maria Silva")).hits]

    run(main())


@needs_kglite
@pytest.mark.promise("graph-reads-only")
def test_a_query_sees_its_own_collection_as_it_is_now(graph):
    async def main():
        await graph.async_upsert(OURS, [facts("a", "Ada", "Engine", relations=[("Ada", "wrote for", "Engine")])])
        asked = read_query(
            "MATCH (a:Entity)-[r:RELATES]->(b:Entity) WHERE a.name = $n RETURN r.kind AS kind, b.name AS name",
            {"n": "Ada"},
        )
        assert await graph.async_query(OURS, asked) == [{"kind": "wrote for", "name": "Engine"}]
        assert await graph.async_query(THEIRS, asked) == []
        count = read_query("MATCH (e:Entity) RETURN count(e) AS n")
        assert await graph.async_query(OURS, count) == [{"n": 2}]
        await graph.async_upsert(OURS, [facts("b", *(f"Name {at}" for at in range(40)))])
        assert await graph.async_query(OURS, count) == [{"n": 42}]
        assert len(await graph.async_query(OURS, read_query("MATCH (e:Entity) RETURN e.name", rows=10))) == 10
        answers = await asyncio.gather(*(graph.async_query(OURS, count) for _ in range(20)))
        assert answers == [[{"n": 42}]] * 20
        slow = read_query("MATCH (a),(b),(c),(d),(e),(f) RETURN count(*) AS n")
        with pytest.raises(RetrievalUnavailable):
            await graph.async_query(OURS, type(slow)(slow.text, {}, 10, 0.05))
        with pytest.raises(RetrievalError, match="cannot be answered"):
            await graph.async_query(OURS, read_query("MATCH (e:Entity RETURN e"))

    run(main())


READS = [
    "MATCH (e:Entity) RETURN e.name ORDER BY e.name DESC SKIP 1 LIMIT 5",
    "MATCH (a:Entity)-[:RELATES*1..3]->(b) WHERE a.name = $name RETURN DISTINCT b.name",
    "OPTIONAL MATCH (c:Chunk)-[:MENTIONS]->(e) WHERE e.n CONTAINS 'call' OR e.a STARTS WITH \"Load\" RETURN count(*)",
    "MATCH (e) WITH e, size(e.name) * 2 AS n WHERE n > 3 AND NOT e.type IN ['x', 'y'] RETURN collect(e.name)[0..3]",
    "UNWIND [1, 2] AS x RETURN x // CREATE (n)",
    "MATCH (e:Entity) RETURN CASE WHEN e.type = 'a' THEN 1 ELSE 2 END AS create_date",
    "MATCH (a)-[r:RELATES|MENTIONS]-(b) RETURN type(r), labels(a)",
    "MATCH (e {name: $name}) RETURN e.load, e.call UNION ALL MATCH (f) RETURN f.set, f.drop",
]
ATTACKS = [
    "CREATE (n:Entity) RETURN n",
    "MATCH (n) DETACH DELETE n",
    "MATCH (n) SET n.name = 'x' RETURN n",
    "MATCH (n) REMOVE n.name RETURN n",
    "MERGE (n:Entity {id: 1}) RETURN n",
    "LOAD CSV FROM 'file:///etc/passwd' AS line RETURN line",
    "load/* */csv from 'http://10.0.0.1/' as l return l",
    "CALL db.labels() YIELD label RETURN label",
    "CALL apoc.load.json('http://x') YIELD value RETURN value",
    "MATCH (n) CALL { WITH n DELETE n } RETURN n",
    "MATCH (n) CALL (n) { SET n.x = 1 } RETURN n",
    "CALL { MATCH (n) DELETE n } IN TRANSACTIONS",
    "MATCH (n) FOREACH (x IN [1] | SET n.a = 1)",
    "RETURN apoc.util.sleep(10000)",
    "RETURN [x IN [1] | apoc.load.json('http://x')]",
    "MATCH (n) WHERE n.a = apoc.cypher.runFirstColumn('CREATE (x)', {}) RETURN n",
    "RETURN custom.delete('x')",
    "RETURN 1; MATCH (n) DELETE n",
    "MATCH (n:`Entity`) RETURN n",
    "MATCH (n:Entity {`a` : 1}) RETURN n",
    "MATCH (n) RETURN n } CREATE (x) {",
    "EXPLAIN MATCH (n) RETURN n",
    "PROFILE MATCH (n) RETURN n",
    "USE system MATCH (n) RETURN n",
    "SHOW USERS",
    "DROP INDEX x IF EXISTS",
    "CREATE CONSTRAINT FOR (n:X) REQUIRE n.id IS UNIQUE",
    "GRANT ROLE admin TO x",
    "MATCH (a)-[*]->(b) RETURN b",
    "MATCH (a)-[:RELATES*2..]->(b) RETURN b",
    "MATCH (a)-[*1..50]->(b) RETURN b",
    "MATCH ((a)-[:RELATES]->(b)){1,100} RETURN b",
    "MATCH (a)-->+(b) RETURN b",
    "MATCH (n) WHERE n.name = '\\u0027 CREATE (x) //' RETURN n",
    "MATCH (n) RETURN n.name =~ '(a+)+$'",
    "MATCH (n:$(x)) RETURN n",
    "MATCH (n) WHERE n.name = $missing RETURN n",
    "MATCH (n)\0 RETURN n",
    "START n=node(*) RETURN n",
    "CYPHER runtime=slotted MATCH (n) RETURN n",
    "INSERT (n) RETURN n",
    "MATCH (n) RETURN randomUUID()",
    "RETURN file('x')",
    "MATCH (n)",
    "",
    "x" * 5_000,
    "MATCH (n) RETURN 'unclosed",
    "MATCH (n) RETURN n /* unclosed",
    "ＣＡＬＬ db.labels()",
]


@pytest.mark.promise("graph-reads-only")
@pytest.mark.parametrize("query", READS)
def test_what_only_reads_is_let_pass(query):
    assert "RETURN" in read_query(query, {"name": "x"}).text


@pytest.mark.promise("graph-reads-only")
@pytest.mark.parametrize("query", ATTACKS)
def test_everything_else_is_refused(query):
    with pytest.raises(MisuseError):
        read_query(query, {"name": "x"})


@needs_kglite
@pytest.mark.promise("graph-reads-only")
@pytest.mark.parametrize("query", ["LOAD CSV FROM 'file:///etc/passwd' AS line RETURN line", "CALL db.labels()"])
def test_what_the_plan_of_a_query_shows_is_refused_whoever_let_it_pass(query):
    copy = graphs.frozen([{"id": "a", "name": "Ada", "type": ""}], [], [], [])
    assert graphs.answered(copy, ReadQuery("MATCH (e:Entity) RETURN e.name AS name")) == [{"name": "Ada"}]
    with pytest.raises(MisuseError, match="is not allowed: a query only reads"):
        graphs.answered(copy, ReadQuery(query))


@pytest.mark.promise("graph-reads-only")
@pytest.mark.parametrize("value", [{"a": 1}, object(), [[[1]]], [1] * 2_000])
def test_parameters_are_plain(value):
    with pytest.raises(MisuseError):
        read_query("MATCH (n) WHERE n.id = $x RETURN n", {"x": value})


@pytest.mark.promise("retrieval-inert")
@pytest.mark.parametrize(
    "name", ["`) DETACH DELETE n //", "'; DROP TABLE entities; --", "\0x", '"', "{}", "$name", "🙂", "a" * 5_000]
)
def test_names_are_data(graph, name):
    async def main():
        await graph.async_upsert(OURS, [facts("a", name, "Somebody", relations=[(name, name, "Somebody")])])
        assert ids(await graph.async_expand(OURS, "Somebody", [])) == ["a"]
        if importlib.util.find_spec("kglite"):
            rows = await graph.async_query(OURS, read_query("MATCH (e:Entity) RETURN e.name AS name"))
            assert {"name": name} in rows

    run(main())


def test_a_library_that_cannot_be_loaded_is_told_with_what_makes_room_for_it(tmp_path, monkeypatch):
    (tmp_path / "kglite.py").write_text("raise ImportError('x.so: cannot allocate memory in static TLS block')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "kglite", raising=False)
    with pytest.raises(MisuseError, match=r"TLS block; .*GLIBC_TUNABLES=glibc"):
        graphs.frozen([], [], [], [])

"""Collections and graphs over HTTP: whose they are, what they answer, and that they come back in time."""

from __future__ import annotations

import asyncio
import json

import pytest

from shared_libs.service.key_format import Key
from shared_libs.service.key_rows import KeyRow, now
from shared_libs.service.key_store import FileKeys
from shared_libs.testing import FaultServer, Healthy, Silence
from tests.service import HELLO, events_of, model_at, serving, write
from tests.support import run

SHELF = """
collections:
  manual: {url: "sqlite:///%s/manual.db", embedder: {provider: rehearsal, script: hello}}
  bare: {url: "sqlite:///%s/manual.db", embedder: null}
"""
DOCUMENTS = [
    {
        "source": "leave.md",
        "title": "Leave",
        "text": "Everyone has 25 days of leave a year.",
        "metadata": {"kind": "rule"},
    },
    {"source": "fr/café.html", "text": "<h1>Café</h1><p>Coffee is free.</p>", "media_type": "text/html"},
]


@pytest.fixture
def folder(tmp_path):
    folder = write(tmp_path, hello=HELLO, collections=SHELF % (tmp_path, tmp_path))
    (folder / "service.yaml").write_text(f'collections: "sqlite:///{tmp_path}/own.db"\n')
    return folder


async def post(served, path, body, **headers):
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    async with served.http.post(path, json=body, headers=told) as answer:
        return answer.status, answer.headers, await answer.json(content_type=None)


async def delete(served, path, **headers):
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    async with served.http.delete(path, headers=told) as answer:
        return answer.status, await answer.json(content_type=None)


@pytest.mark.promise("http-collections")
def test_documents_go_in_and_passages_come_out_with_their_places(folder):
    async def main():
        async with serving(folder) as served:
            at = "/v1/collections/manual"
            _, headers, indexed = await post(served, f"{at}/index", {"documents": DOCUMENTS})
            assert headers["x-factory-deadline"] == "600.000"
            assert (indexed["finished"], indexed["documents_done"], indexed["failed"]) == (True, 2, 0)
            _, _, again = await post(served, f"{at}/index", {"documents": DOCUMENTS})
            assert (again["unchanged"], again["embedded"]) == (2, 0)
            for way in ("search", "retrieve"):
                status, headers, found = await post(
                    served, f"{at}/{way}", {"question": "How many days of leave?", "k": 1.0}
                )
                assert (status, headers["x-factory-deadline"]) == (200, "10.000")
                hit = found["hits"][0]
                _, _, kept = await served.get(f"{at}/documents/{hit['document']}")
                assert kept["text"][hit["start"] : hit["end"]] == hit["text"] == DOCUMENTS[0]["text"]
                assert {stage["state"] for stage in found["stages"]} == {"ok"}
            _, _, found = await post(served, f"{at}/search", {"query": "leave", "where": {"kind": "other"}})
            assert found["hits"] == []
            _, _, row = await served.get(at)
            assert (row["documents"], row["chunks"]) == (2, 2)
            _, _, listed = await served.get(f"{at}/documents?limit=1")
            _, _, rest = await served.get(f"{at}/documents?limit=1&after={listed['next']}")
            assert {listed["documents"][0]["source"], rest["documents"][0]["source"]} == {"leave.md", "fr/café.html"}
            _, _, page = await served.get(f"{at}/documents/fr/caf%C3%A9.html")
            assert "<p>" not in page["text"]
            assert (await delete(served, f"{at}/documents/leave.md"))[0] == 200
            _, _, found = await post(served, f"{at}/search", {"question": "days of leave"})
            assert "leave.md" not in [hit["source"] for hit in found["hits"]]
            assert (await delete(served, f"{at}/documents/leave.md"))[0] == 404
            assert (await delete(served, at))[0] == 200
            assert (await served.get(at))[0] == 404

    run(main())


@pytest.mark.promise("http-collections")
def test_an_indexing_tells_how_far_it_is_and_comes_back_in_time(folder):
    many = [
        {"source": f"d{at}", "text": "\n\n".join(f"Paragraph {at} {n}. " * 20 for n in range(20))} for at in range(40)
    ]

    async def main():
        async with serving(folder) as served:
            path = "/v1/collections/manual/index"
            headers = {"accept": "text/event-stream"}
            async with served.http.post(path, json={"documents": many[:20]}, headers=headers) as answer:
                events = events_of(await answer.read())
            assert [name for _, name, _ in events] == ["progress"] * (len(events) - 1) + ["finished"]
            assert json.loads(events[-1][2])["documents_done"] == 20
            _, _, hurried = await post(served, path, {"documents": many}, x_request_timeout="0.001")
            assert hurried.get("finished") is False or hurried["code"] == "deadline_unreachable"
            _, _, done = await post(served, path, {"documents": many})
            assert (done["finished"], done["documents_done"]) == (True, 40)

    run(main())


@pytest.mark.promise("serve-once")
def test_what_is_asked_again_of_a_collection_or_a_graph_is_done_once(folder):
    facts = {"entities": [{"name": "Ada", "type": "person"}], "relations": []}
    path, key = "/v1/collections/shelf", {"idempotency_key": "k"}

    async def main():
        async with FaultServer({"m": Healthy(json.dumps(facts)), "e": Healthy()}) as upstream:
            embedder = f"{{provider: openai, model: e, base_url: '{upstream.url('openai')}', api_key: x}}"
            shelf = f"collections:\n  shelf: {{url: 'sqlite:///{folder}/shelf.db', embedder: {embedder}}}\n"
            write(folder, m=model_at(upstream, "m"), collections=shelf)
            async with serving(folder) as served:
                seen = []

                async def thrice(where, body, **headers):
                    async def ask():
                        return (await post(served, where, body, **key, **headers))[::2]

                    before = len(upstream.requests)
                    answers = [*await asyncio.gather(ask(), ask()), await ask()]
                    assert [status for status, _ in answers] == [200] * 3, answers
                    assert answers[1:] == answers[:1] * 2
                    mismatch = await post(served, where, body | {"question": "another", "facts": []}, **key)
                    assert mismatch[0] in (400, 422)
                    seen.append(len(upstream.requests) - before)
                    return answers[0][1]

                first = await thrice(f"{path}/index", {"documents": DOCUMENTS})
                assert (first["embedded"], first["unchanged"]) == (2, 0)  # the third is no indexing of its own
                found = await thrice(f"{path}/search", {"question": "How many days of leave?"})
                await thrice(f"{path}/retrieve", {"question": "How many days of leave?"})
                await thrice("/v1/graph/extract", {"models": ["m/chain"], "text": "Ada."})
                assert seen[1:] == [1, 1, 1]
                told = [{"chunk": found["hits"][0]["id"], "entities": [{"name": "leave"}], "relations": []}]
                await thrice("/v1/graph/upsert", {"collection": "shelf", "facts": told})
                counts = {"collection": "shelf", "cypher": "MATCH (e:Entity) RETURN count(e) AS n"}
                assert (await thrice("/v1/graph/query", counts))["rows"] == [{"n": 1}]
                for where in (f"{path}/documents/leave.md", path):
                    gone = [await delete(served, where, **key) for _ in range(2)]
                    assert gone == [(200, {"deleted": True})] * 2
                    assert (await delete(served, where))[0] == 404

    run(main())


REFUSED = [
    ("/v1/collections/manual/search", {"question": ""}, 400, "not empty"),
    ("/v1/collections/manual/search", {"question": "x", "k": 0}, 400, "from 1 to"),
    ("/v1/collections/manual/search", {"question": "x", "k": True}, 400, "whole number"),
    ("/v1/collections/manual/search", {"question": "x", "where": {"a b": 1}}, 400, "metadata key"),
    ("/v1/collections/manual/search", {"question": "x", "where": {"a": {"$gt": 1}}}, 400, "allowed are"),
    ("/v1/collections/manual/search", {"question": "x", "wher": {}}, 400, "did you mean 'where'"),
    ("/v1/collections/nowhere/search", {"question": "x"}, 404, "no collection 'nowhere'"),
    ("/v1/collections/a%00b/search", {"question": "x"}, 400, "printable"),
    ("/v1/collections/manual/index", {"documents": []}, 400, "a list of 1 to"),
    ("/v1/collections/manual/index", {"documents": [3]}, 400, "documents[0]"),
    ("/v1/collections/manual/index", {"documents": [{"source": "a"}]}, 400, "documents[0].text"),
    ("/v1/graph/query", {"collection": "manual", "cypher": "MATCH (n) DETACH DELETE n RETURN 1"}, 400, "DETACH"),
    ("/v1/graph/query", {"collection": "manual", "cypher": "CALL db.labels()"}, 400, "CALL"),
    ("/v1/graph/query", {"collection": "manual", "cypher": "MATCH (n) RETURN n", "rows": 9999}, 400, "rows"),
    ("/v1/graph/upsert", {"collection": "manual", "facts": [{"chunk": 3}]}, 400, "facts"),
    ("/v1/graph/upsert", {"collection": "manual", "facts": [{"chunk": "x"}]}, 400, "no chunk 'x'"),
    ("/v1/graph/extract", {"collection": "manual", "text": "x"}, 404, "models"),
    ("/v1/graph/extract", {"models": ["nobody"], "text": "x"}, 404, "nobody"),
    ("/v1/graph/probe", {"models": []}, 400, "a list of 1 to"),
]


@pytest.mark.promise("http-collections")
def test_what_is_asked_wrongly_is_told(folder):
    async def main():
        async with serving(folder) as served:
            await post(served, "/v1/collections/manual/index", {"documents": DOCUMENTS})
            for path, body, status, says in REFUSED:
                got, _, told = await post(served, path, body)
                assert (got, says in told["detail"]) == (status, True), (path, body, told)

    run(main())


@pytest.mark.promise("http-graph")
def test_what_chunks_tell_is_kept_and_asked_for(folder):
    async def main():
        async with serving(folder) as served:
            text = "Ada Lovelace worked with Charles Babbage."
            await post(served, "/v1/collections/manual/index", {"documents": [{"source": "a", "text": text}]})
            _, _, found = await post(served, "/v1/collections/manual/search", {"question": "Ada"})
            facts = {
                "chunk": found["hits"][0]["id"],
                "entities": [
                    {"name": "Ada Lovelace", "type": "person"},
                    {"name": "Charles Babbage"},
                    {"name": "Elvis"},
                ],
                "relations": [
                    {"source": "Ada Lovelace", "kind": "worked with", "target": "Charles Babbage"},
                    {"source": "Elvis", "kind": "sang for", "target": "Ada Lovelace"},
                ],
            }
            for _ in range(2):
                status, _, kept = await post(served, "/v1/graph/upsert", {"collection": "manual", "facts": [facts]})
                assert (status, kept) == (200, {"chunks": 1, "entities": 2, "relations": 1})
            cypher = "MATCH (e:Entity {name: $name})-[r:RELATES]->(o) RETURN r.kind AS kind, o.name AS name"
            asked = {"collection": "manual", "cypher": cypher, "parameters": {"name": "Ada Lovelace"}}
            status, _, answer = await post(served, "/v1/graph/query", asked)
            assert (status, answer["rows"]) == (200, [{"kind": "worked with", "name": "Charles Babbage"}])

    run(main())


@pytest.mark.promise("http-graph")
def test_models_of_the_catalogue_read_a_text(folder):
    async def main():
        async with serving(folder) as served:
            _, _, told = await post(served, "/v1/graph/probe", {"models": ["hello/chain"]})
            assert [(row["model"], row["state"]) for row in told["readings"]]

    run(main())


@pytest.mark.promise("http-graph", "extract-losers-cost")
def test_a_race_over_http_is_won_by_the_healthy_one_and_what_the_others_cost_is_told(folder):
    answer = {
        "entities": [{"name": "Ada Lovelace", "type": "person"}, {"name": "Elvis", "type": "person"}],
        "relations": [],
    }
    scripts = {"m": Silence(), "good": Healthy(json.dumps(answer)), "babbles": Healthy("lorem ipsum")}

    async def main():
        async with FaultServer(scripts) as upstream:
            write(
                folder,
                hangs=model_at(upstream, "hangs"),
                good=model_at(upstream, "good").replace("model: m", "price: {input: 1, output: 2}, model: good"),
                babbles=model_at(upstream, "babbles").replace(
                    "model: m", "price: {input: 1, output: 2}, model: babbles"
                ),
            )
            async with serving(folder) as served:
                models = ["hangs/chain", "babbles/chain", "good/chain"]
                body = {"models": models, "text": "Ada Lovelace wrote the first program."}
                status, _, told = await post(served, "/v1/graph/extract", body)
        rows = {row["model"]: row for row in told["readings"]}
        assert (status, told["model"]) == (200, "good")
        assert told["entities"] == [{"name": "Ada Lovelace", "type": "person"}]
        assert (rows["m"]["state"], rows["m"]["attempts"], rows["m"]["estimated"]) == ("cancelled", 1, True)
        assert rows["m"]["cost_usd"] is None  # nobody told its price
        assert rows["good"]["cost_usd"] > 0
        assert rows["babbles"]["cost_usd"] > 0

    run(main())


@pytest.mark.promise("http-tenants")
def test_what_one_team_keeps_no_other_finds(folder):
    async def main():
        store, keys = FileKeys(folder / "keys.yaml"), {}
        for team, scope in (("default", "*"), ("", "*"), ("readers", "collections:read:manual")):
            key = Key.new()
            await store.keep(KeyRow(id=key.id, hash=key.hash(""), created_at=now(), team=team, scopes=(scope,)))
            keys[team] = str(key)
        async with serving(folder, keys["default"]) as served:
            for name in ("manual", "own"):
                assert (await post(served, f"/v1/collections/{name}/index", {"documents": DOCUMENTS}))[0] == 200
                for team in ("", "readers"):
                    headers = {"authorization": f"Bearer {keys[team]}"}
                    for way in ("search", "retrieve"):
                        got, _, told = await post(
                            served, f"/v1/collections/{name}/{way}", {"question": "leave"}, **headers
                        )
                        assert (got, told["code"]) == (404, "not_found")
            _, _, listed = await served.get("/v1/collections")
            assert {row["name"] for row in listed["collections"]} == {"manual", "bare", "own"}
            reader = {"authorization": f"Bearer {keys['readers']}"}
            _, _, listed = await served.get("/v1/collections", **reader)
            assert {row["name"] for row in listed["collections"]} == {"manual"}
            got, _, told = await post(served, "/v1/collections/manual/index", {"documents": DOCUMENTS}, **reader)
            assert (got, told["code"]) == (403, "forbidden")
            got, _, told = await post(served, "/v1/collections/own/index", {"documents": DOCUMENTS}, **reader)
            assert got == 404

    run(main())

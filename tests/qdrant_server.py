"""A stand-in for a Qdrant server: its REST, as far as vectors of collections use it, over Qdrant's own local engine."""

from __future__ import annotations

from aiohttp import web
from qdrant_client import AsyncQdrantClient, models

ENDPOINTS = web.RouteTableDef()
ENGINE = web.AppKey("engine", AsyncQdrantClient)
ASKED = web.AppKey("asked", list)
INDEXES = web.AppKey("indexes", list)


def answered(result):
    if hasattr(result, "model_dump"):
        result = result.model_dump(mode="json")
    elif isinstance(result, list):
        result = [row.model_dump(mode="json") for row in result]
    return web.json_response({"result": result, "status": "ok", "time": 0.0})


def engine(request):
    request.app[ASKED].append((request.method, request.path, request.headers.get("api-key")))
    return request.app[ENGINE], request.match_info.get("name", "")


@ENDPOINTS.get("/collections")
async def collections(request):
    return answered(await engine(request)[0].get_collections())


@ENDPOINTS.get("/collections/{name}/exists")
async def exists(request):
    client, name = engine(request)
    return answered(models.CollectionExistence(exists=await client.collection_exists(name)))


@ENDPOINTS.put("/collections/{name}")
async def create(request):
    client, name = engine(request)
    if await client.collection_exists(name):
        return web.json_response({"status": {"error": "already exists"}, "time": 0.0}, status=409)
    vectors = models.VectorParams(**(await request.json())["vectors"])
    await client.create_collection(name, vectors_config=vectors)
    return answered(models.CollectionExistence(exists=True))


@ENDPOINTS.put("/collections/{name}/index")
async def index(request):
    engine(request)
    body = await request.json()
    request.app[INDEXES].append((body["field_name"], body["field_schema"]["is_tenant"]))
    return answered(models.UpdateResult(operation_id=1, status=models.UpdateStatus.COMPLETED))


@ENDPOINTS.put("/collections/{name}/points")
async def upsert(request):
    client, name = engine(request)
    points = [models.PointStruct(**row) for row in (await request.json())["points"]]
    return answered(await client.upsert(name, points))


@ENDPOINTS.post("/collections/{name}/points")
async def retrieve(request):
    client, name = engine(request)
    body = await request.json()
    return answered(await client.retrieve(name, body["ids"], with_payload=body.get("with_payload", True)))


@ENDPOINTS.post("/collections/{name}/points/query")
async def query(request):
    client, name = engine(request)
    body = models.QueryRequest(**await request.json())
    found = await client.query_points(name, query=body.query, query_filter=body.filter, limit=body.limit)
    return answered(found)


@ENDPOINTS.post("/collections/{name}/points/payload")
async def payload(request):
    client, name = engine(request)
    body = await request.json()
    return answered(await client.set_payload(name, body["payload"], points=body["points"]))


@ENDPOINTS.post("/collections/{name}/points/delete")
async def delete(request):
    client, name = engine(request)
    body = await request.json()
    chosen = body["points"] if "points" in body else models.FilterSelector(filter=models.Filter(**body["filter"]))
    return answered(await client.delete(name, chosen))


@ENDPOINTS.post("/collections/{name}/points/count")
async def count(request):
    client, name = engine(request)
    body = models.CountRequest(**await request.json())
    return answered(await client.count(name, count_filter=body.filter, exact=True))


@web.middleware
async def not_found(request, handler):
    try:
        return await handler(request)
    except ValueError as error:
        if "not found" not in str(error):
            raise
        return web.json_response({"status": {"error": f"Not found: {error}"}, "time": 0.0}, status=404)


def application():
    app = web.Application(middlewares=[not_found])
    app[ENGINE], app[ASKED], app[INDEXES] = AsyncQdrantClient(":memory:", check_compatibility=False), [], []
    app.router.add_routes(ENDPOINTS)
    return app

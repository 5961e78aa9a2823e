"""docs/openapi.json says what the tables and the messages say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pgnode.api.documents.openapi import openapi, openapi_text
from pgnode.api.methods import BY_ROUTE, METHODS, Method
from pgnode.api.rest.auth_step import AuthStep
from pgnode.api.rest.body import BodyReader
from pgnode.api.rest.pipeline import RequestPipeline
from pgnode.api.service.maintenance_calls import CALLS
from pgnode.api.service.monitor_pages import PAGES, Page
from pgnode.wire import service_pb2 as pb
from tests.generated_docs import OPENAPI

DOCUMENT = openapi("1.2.3")


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, item in DOCUMENT["paths"].items()
        for method, operation in item.items()
        if method != "servers"
    }


def test_openapi_has_exactly_the_rest_routes() -> None:
    async def app(*_: Any) -> None:
        raise AssertionError("no request")

    body = BodyReader(max_bytes=1, timeout_seconds=1, size_setting=None)
    routes = RequestPipeline(app, METHODS, AuthStep("0" * 32, lambda: None), body).routes
    rest = {route for route in operations() if "servers" not in DOCUMENT["paths"][route[1]]}
    assert rest == set(BY_ROUTE) == {(method, path.rstrip("/")) for method, path in routes}


def test_openapi_has_exactly_the_maintenance_calls() -> None:
    elsewhere = {route for route in operations() if "servers" in DOCUMENT["paths"][route[1]]}
    pages = {(page.http_method, page.path) for page in PAGES}
    assert elsewhere == {(call.http_method, call.path) for call in CALLS} | pages
    for call in CALLS:
        operation = operations()[call.http_method, call.path]
        assert ("requestBody" in operation) is call.takes_body
        assert set(operation["responses"]) == {"200", *(str(error.status) for error in call.all_errors)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_openapi_has_the_pages_for_monitors(page: Page) -> None:
    operation = operations()[page.http_method, page.path]
    assert ("503" in operation["responses"]) is bool(page.unwell)
    assert {"200", "401", "500"} <= operation["responses"].keys()
    assert ("METRICS_KEY" in operation["description"]) is page.with_metrics_key


@pytest.mark.parametrize("row", METHODS, ids=lambda row: row.grpc_name)
def test_openapi_operations_follow_their_rows(row: Method) -> None:
    operation = operations()[row.http_method, row.path]
    assert operation["operationId"] == row.grpc_name
    assert ("requestBody" in operation) is row.takes_body
    statuses = {"200", *(str(error.status) for error in row.all_errors)}
    assert set(operation["responses"]) == statuses
    assert {"401", "500"} <= statuses
    contents = [operation["responses"]["200"]["content"]]
    if row.takes_body:
        contents.append(operation["requestBody"]["content"])
    expected = {"text/event-stream", "application/x-ndjson"} if row.streaming else set()
    for content in contents:
        assert set(content) == (expected or {"application/x-protobuf", "application/json"})


def test_openapi_s_references_lead_somewhere_and_nothing_is_left_over() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    prefix = "#/components/schemas/"
    used: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                used.add(value["$ref"].removeprefix(prefix))
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(DOCUMENT)
    assert used <= set(schemas)
    assert set(schemas) - used <= {"UsersChunk", "Log", "Empty"}


def test_schemas_have_the_messages_fields() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    for name, message in pb.DESCRIPTOR.message_types_by_name.items():
        assert list(schemas[name]["properties"]) == [field.name for field in message.fields]
    assert schemas["StatRequest"]["properties"]["type"]["enum"] == list(pb.StatType.keys())
    assert schemas["StatsOnlineIpListResponse"]["properties"]["ips"]["additionalProperties"]["format"] == "int64"


def test_the_file_is_openapi_3_1_with_both_kinds_of_key() -> None:
    document = json.loads(OPENAPI.read_text(encoding="utf-8"))
    assert document["openapi"].startswith("3.1.")
    schemes = document["components"]["securitySchemes"]
    assert [set(option) for option in document["security"]] == [{name} for name in schemes]
    assert schemes["key"] == {"type": "apiKey", "in": "header", "name": "x-api-key"}
    assert schemes["bearer"] == {"type": "http", "scheme": "bearer"}


def test_the_text_is_the_document() -> None:
    assert json.loads(openapi_text("1.2.3")) == DOCUMENT
    assert DOCUMENT["info"]["version"] == "1.2.3"

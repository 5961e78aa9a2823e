"""docs/openapi.json: the REST API for tools, in OpenAPI 3.1. Schemas are those of proto3 JSON, made from the descriptors."""

from __future__ import annotations

import json
from collections import defaultdict
from http import HTTPStatus
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from pgnode.api.methods import METHODS, Method
from pgnode.api.rest.negotiation import EVENT_STREAM, JSON, JSON_LINES, PLAIN_TEXT, PROTOBUF
from pgnode.api.service.maintenance_calls import CALLS, MaintenanceCall
from pgnode.api.service.monitor_pages import PAGES, Page
from pgnode.errors import BY_CODE, InternalError, NodeError, UnauthenticatedError
from pgnode.wire import service_pb2 as pb

Json = dict[str, Any]

#: Phrases that Python changed with version 3.13, as RFC 9110 (section 15) has them.
_PHRASES = {413: "Content Too Large"}

_INFO: Json = {
    "title": "pgnode",
    "description": "A node for proxy panels. Messages are protobuf (service.proto) or proto3 JSON; errors JSON or plain text.",
    "license": {"name": "MIT", "identifier": "MIT"},
}

#: JSON numbers of these lose digits in many readers, so proto3 JSON writes them as strings and reads both.
_WIDE = {FieldDescriptor.CPPTYPE_INT64: "int64", FieldDescriptor.CPPTYPE_UINT64: "uint64"}
_SCALARS: dict[int, Json] = {
    FieldDescriptor.CPPTYPE_STRING: {"type": "string"},
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "format": "int64", "minimum": 0, "maximum": 2**32 - 1},
}

_ERROR: Json = {
    "type": "object",
    "required": ["error", "code"],
    "properties": {
        "error": {"type": "string", "description": "What is wrong; begins with the cause."},
        "code": {"type": "string", "enum": sorted(BY_CODE)},
    },
}

_MAINTENANCE_ERROR: Json = {
    "type": "object",
    "required": [*_ERROR["required"], "detail"],
    "properties": {**_ERROR["properties"], "detail": {"type": "string", "description": "The text of `error`."}},
}
_MAINTENANCE_FIELDS: dict[str, Json] = {
    "/node/core_update": {"core_version": {"type": "string", "examples": ["latest", "26.10.10", "v26.10.10"]}},
    "/node/geofiles": {"region": {"type": "string", "examples": ["iran", "china", "russia"]}},
}


def openapi_text(version: str) -> str:
    """Return the text of docs/openapi.json for the node's ``version``."""
    return json.dumps(openapi(version), indent=2, ensure_ascii=False) + "\n"


def openapi(version: str) -> Json:
    """Return the document as an object."""
    schemas: Json = {"Error": _ERROR}
    paths: dict[str, Json] = defaultdict(dict)
    for row in METHODS:
        paths[row.path][row.http_method.lower()] = _operation(row)
        for message in (row.request, row.response, _json_request(row)):
            _add_schema(message.DESCRIPTOR, schemas)
    schemas["MaintenanceError"] = _MAINTENANCE_ERROR
    for call in CALLS:
        paths[call.path] = {"servers": [_server("62051")], call.http_method.lower(): _maintenance(call)}
    for page in PAGES:
        paths[page.path] = {"servers": [_server("62051")], page.http_method.lower(): _page(page)}
    return {
        "openapi": "3.1.0",
        "info": {**_INFO, "version": version},
        "servers": [_server("62050")],
        "security": [{"key": []}, {"bearer": []}],
        "paths": dict(paths),
        "components": {
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
            "schemas": dict(sorted(schemas.items())),
        },
    }


def _server(port: str) -> Json:
    return {
        "url": "https://{host}:{port}",
        "variables": {"host": {"default": "127.0.0.1"}, "port": {"default": port}},
    }


def _operation(row: Method) -> Json:
    operation: Json = {
        "operationId": row.grpc_name,
        "summary": row.summary,
        "description": "Works in every state of the node." if row.any_state else "Needs a running core.",
    }
    if row.takes_body:
        operation["requestBody"] = {
            "required": row.http_method in ("PUT", "POST"),
            "content": {PROTOBUF: _binary(row), JSON: _reference(_json_request(row).DESCRIPTOR)},
        }
    operation["responses"] = {"200": _success(row), **_failures(row.all_errors, "Error")}
    return operation


def _json_request(row: Method) -> Any:
    """Return the message that a JSON body holds; JSON that is whole needs no chunks."""
    return pb.Users if row.request is pb.UsersChunk else row.request


def _binary(row: Method) -> Json:
    """Describe a body in binary form; JSON Schema says nothing about bytes, so the message is named in words."""
    name = row.request.DESCRIPTOR.name
    if row.request is pb.UsersChunk:
        return {"schema": {"description": f"A run of (unsigned varint length, {name} bytes), see api.md."}}
    return {"schema": {"description": f"The message {name} of service.proto."}}


def _success(row: Method) -> Json:
    name = row.response.DESCRIPTOR.name
    if row.streaming:
        lines = {"schema": {"type": "string", "description": "One log line a line; an empty line is a heartbeat."}}
        objects = {"schema": {"type": "string", "description": f"One {name} object a line."}}
        return {"description": "A stream without an end.", "content": {EVENT_STREAM: lines, JSON_LINES: objects}}
    answer: Json = {
        "description": name,
        "content": {
            PROTOBUF: {"schema": {"description": f"The message {name} of service.proto."}},
            JSON: _reference(row.response.DESCRIPTOR),
        },
    }
    if row.aged:
        answer["headers"] = {
            "Age": {
                "schema": {"type": "integer"},
                "description": "Seconds since the core was read; missing with reset, for which it is read.",
            }
        }
    return answer


def _maintenance(call: MaintenanceCall) -> Json:
    """Describe a call of the maintenance API, which has a port of its own."""
    operation: Json = {"operationId": f"maintenance_{call.handler}", "summary": call.summary}
    if call.takes_body:
        fields = _MAINTENANCE_FIELDS[call.path]
        schema = {
            "type": "object",
            "additionalProperties": False,
            "required": list(fields),
            "properties": fields,
        }
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    answer = {"type": "object", "required": ["detail"], "properties": {"detail": {"type": "string"}}}
    operation["responses"] = {
        "200": {"description": "What was done.", "content": {JSON: {"schema": answer}}},
        **_failures(call.all_errors, "MaintenanceError"),
    }
    return operation


#: What OpenMetrics is told by.
_OPEN_METRICS = "application/openmetrics-text"


def _page(page: Page) -> Json:
    """Describe a page for monitors, on the port of the maintenance API."""
    text = {"schema": {"type": "string"}}
    found = (
        {PLAIN_TEXT: text, _OPEN_METRICS: text} if page.path == "/metrics" else {JSON: {"schema": {"type": "object"}}}
    )
    responses: Json = {"200": {"description": "Well.", "content": found}}
    if page.unwell:
        responses["503"] = {"description": f"{page.unwell}.", "content": found}
    return {
        "operationId": f"monitor_{page.name}",
        "summary": page.summary,
        "description": "METRICS_KEY opens it, too." if page.with_metrics_key else "Opened by the API key alone.",
        "responses": {**responses, **_failures((UnauthenticatedError, InternalError), "MaintenanceError")},
    }


def _failures(possible: tuple[type[NodeError], ...], schema: str) -> Json:
    by_status: dict[int, list[type[NodeError]]] = defaultdict(list)
    for error in possible:
        by_status[error.status].append(error)
    return {str(status): _failure(status, errors, schema) for status, errors in sorted(by_status.items())}


def _failure(status: int, errors: list[type[NodeError]], schema: str) -> Json:
    meanings = "; ".join(f"{error.code}: {(error.__doc__ or '').splitlines()[0].rstrip('.')}" for error in errors)
    answer: Json = {
        "description": f"{_PHRASES.get(status) or HTTPStatus(status).phrase}. {meanings}.",
        "content": {JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
        "headers": {},
    }
    if schema == "Error" and errors != [UnauthenticatedError]:
        answer["content"][PLAIN_TEXT] = {"schema": {"type": "string", "description": "The text of `error` alone."}}
        answer["headers"]["x-error-code"] = {"schema": _ERROR["properties"]["code"], "description": "With plain text."}
    if any(error.retry_after_seconds is not None for error in errors):
        answer["headers"]["Retry-After"] = {"schema": {"type": "integer"}, "description": "Seconds."}
    if UnauthenticatedError in errors:
        answer["headers"]["WWW-Authenticate"] = {"schema": {"const": "Bearer"}}
    return answer


def _reference(descriptor: Any) -> Json:
    return {"schema": {"$ref": f"#/components/schemas/{descriptor.name}"}}


def _add_schema(descriptor: Any, schemas: Json) -> None:
    """Add the schemas of a message and of all that its fields hold."""
    if descriptor.name in schemas:
        return
    properties: Json = {}
    schemas[descriptor.name] = {"type": "object", "additionalProperties": False, "properties": properties}
    for field in descriptor.fields:
        properties[field.name] = _field(field, schemas)


def _field(field: FieldDescriptor, schemas: Json) -> Json:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        return {"type": "object", "additionalProperties": _value(message.fields_by_name["value"], schemas)}
    value = _value(field, schemas)
    return {"type": "array", "items": value} if field.is_repeated else value


def _value(field: FieldDescriptor, schemas: Json) -> Json:
    if field.message_type is not None:
        _add_schema(field.message_type, schemas)
        return {"$ref": f"#/components/schemas/{field.message_type.name}"}
    if field.enum_type is not None:
        return _enum(field.enum_type)
    if field.cpp_type in _WIDE:
        return {"type": ["string", "integer"], "format": _WIDE[field.cpp_type]}
    return dict(_SCALARS[field.cpp_type])


def _enum(enum: EnumDescriptor) -> Json:
    return {"type": "string", "enum": [value.name for value in enum.values]}

"""The table of methods, the messages' description and the service say the same."""

from __future__ import annotations

import pytest

from pgnode.api.methods import BY_ROUTE, METHODS, Method
from pgnode.errors import BY_CODE
from pgnode.wire import service_pb2 as pb
from tests.unit.api.fakes import Node

SERVICE = pb.DESCRIPTOR.services_by_name["NodeService"]


def test_the_table_is_the_proto_s_service() -> None:
    described = [
        (m.name, m.input_type.name, m.client_streaming, m.output_type.name, m.server_streaming) for m in SERVICE.methods
    ]
    listed = [
        (
            row.grpc_name,
            row.request.DESCRIPTOR.name,
            row.client_streaming,
            row.response.DESCRIPTOR.name,
            row.streaming,
        )
        for row in METHODS
    ]
    assert sorted(listed) == sorted(described)


def test_no_two_rows_are_the_same_call() -> None:
    assert len(BY_ROUTE) == len(METHODS) == len({row.grpc_name for row in METHODS})


@pytest.mark.parametrize("row", METHODS, ids=lambda row: row.grpc_name)
def test_every_row_has_a_handler_and_declared_errors_that_cross_the_bus(row: Method) -> None:
    assert callable(getattr(Node().service(), row.handler))
    assert {error.code for error in row.all_errors} <= set(BY_CODE)


@pytest.mark.parametrize("row", METHODS, ids=lambda row: row.grpc_name)
def test_the_further_handlers_of_a_row_are_there(row: Method) -> None:
    service = Node().service()
    assert hasattr(service, row.cached_handler) == row.cached
    assert hasattr(service, row.stream_handler) == row.client_streaming
    assert BY_ROUTE[row.route] is row

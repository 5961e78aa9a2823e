"""The reflection service under both of its names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpc_reflection.v1alpha import reflection_pb2

from pgnode.api.grpc import reflection


@pytest.mark.parametrize("service", reflection.SERVICES)
async def test_it_tells_of_the_services(service: str) -> None:
    handlers = reflection.handlers(["a.A", "b.B"])
    assert set(handlers) == {f"/{name}/ServerReflectionInfo" for name in reflection.SERVICES}
    handler: Any = handlers[f"/{service}/ServerReflectionInfo"]

    async def requests() -> AsyncIterator[Any]:
        yield handler.request_deserializer(reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString())

    [answer] = [answer async for answer in handler.stream_stream(requests(), None)]
    assert [found.name for found in answer.list_services_response.service] == ["a.A", "b.B"]

"""gRPC's reflection service, for operators' tools such as grpcurl; served where GRPC_REFLECTION asks for it, with the key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

#: Both names have the same messages; newer tools ask for the first.
SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


def handlers(services: Iterable[str]) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    """Return the handlers of the reflection service by path; it tells of ``services``."""
    servicer = reflection.aio.ReflectionServicer(tuple(services))  # type: ignore[attr-defined]
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return {f"/{service}/ServerReflectionInfo": handler for service in SERVICES}

"""gRPC's reflection service, for operators' tools such as grpcurl; served where GRPC_REFLECTION asks for it, with the key."""

from __future__ import annotations

from collections.abc import Iterable

from pgnode.api.grpc.grpc_compat import RpcHandler, reflection_handler

#: Both names have the same messages; newer tools ask for the first.
SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


def handlers(services: Iterable[str]) -> dict[str, RpcHandler]:
    """Return the handlers of the reflection service by path; it tells of ``services``."""
    handler = reflection_handler(services)
    return {f"/{service}/ServerReflectionInfo": handler for service in SERVICES}

"""``grpc.health.v1``: serving or not, for balancers and probes; with the key, unless GRPC_HEALTH says otherwise.

Nothing of a caller's message is read: the answer is that of the worker, whatever service is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from pgnode.api.grpc.errors import refuse
from pgnode.api.grpc.grpc_compat import Context
from pgnode.api.grpc.limits import ConcurrencyLimit
from pgnode.errors import NodeError

SERVICE: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

#: The methods, by path.
PATHS = (f"/{SERVICE}/Check", f"/{SERVICE}/Watch")

#: Callers that watch at once.
WATCHERS_MAX = 64

#: Seconds between two checks of the state for those who watch.
POLL_INTERVAL_SECONDS = 0.5

_SERVING: bytes = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING).SerializeToString()
_NOT_SERVING: bytes = health_pb2.HealthCheckResponse(
    status=health_pb2.HealthCheckResponse.NOT_SERVING
).SerializeToString()


def handlers(serving: Callable[[], bool]) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    """Return the handlers of Check and Watch by path; ``serving`` is asked for every answer."""
    limit = ConcurrencyLimit(WATCHERS_MAX, "health watchers", "the time between calls of Check")

    def state() -> bytes:
        return _SERVING if serving() else _NOT_SERVING

    async def check(_messages: Any, _context: Context) -> bytes:
        return state()

    async def watch(_messages: Any, context: Context) -> None:
        try:
            with limit:
                told = None
                while True:
                    if state() != told:
                        told = state()
                        await context.write(told)
                    await asyncio.sleep(POLL_INTERVAL_SECONDS)
        except NodeError as error:
            await refuse(context, error)

    check_path, watch_path = PATHS
    return {
        check_path: grpc.stream_unary_rpc_method_handler(check),
        watch_path: grpc.stream_stream_rpc_method_handler(watch),
    }

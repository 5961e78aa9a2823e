"""Answers that are tracked: whether one reached its caller, as far as the gRPC library knows."""

from __future__ import annotations

import structlog

from pgnode.api.grpc.grpc_compat import Context, WriteError, when_call_ends
from pgnode.api.service.tracked import TrackedResponse
from pgnode.bus.indexed import Body

log = structlog.get_logger(__name__)


async def deliver(answer: Body | TrackedResponse, context: Context) -> None:
    """Write an answer, and say whether it arrived where that is tracked.

    It has arrived when it was written and the call ended without the caller having gone. For a handler that returns its
    answer the library keeps that to itself. Here a failed write is seen, and the call's task knows whether it was cancelled.

    Args:
        answer: The bytes of the response's message, tracked or not.
        context: The call; this has to run in the call's own task.
    """
    if not isinstance(answer, TrackedResponse):
        # The library takes nothing else than bytes, and copies them in any case.
        await context.write(bytes(answer))
        return
    written = False

    def ended(well: bool) -> None:
        answer.settle(written and well)

    when_call_ends(ended)
    try:
        await context.write(answer.body)
        written = True
    except WriteError as error:
        log.debug("answer not taken", error=repr(error))

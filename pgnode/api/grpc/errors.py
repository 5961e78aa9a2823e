"""Errors over gRPC: the status of the error's class, its text as details, its code in the trailing metadata."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import grpc

from pgnode.api.auth import WRONG_KEY
from pgnode.api.grpc.grpc_compat import Context, RpcHandler, abort
from pgnode.errors import NodeError, UnauthenticatedError

#: Trailing metadata that holds the error's code.
CODE_KEY = "error-code"

#: Bytes of a text that are sent at most. They travel in a header, where three may become of one, and callers take
#: 8 KiB of headers in all (gRPC's ``max_metadata_size``).
DETAILS_BYTES_MAX = 1500


def details(text: str) -> str:
    """Return ``text`` as it is sent: shortened where it is long, since the cause comes first."""
    data = text.encode(errors="replace")
    if len(data) <= DETAILS_BYTES_MAX:
        return data.decode()
    return data[:DETAILS_BYTES_MAX].decode(errors="ignore") + "…"


async def refuse(context: Context, error: NodeError) -> NoReturn:
    """End the call with ``error``."""
    await abort(context, error.grpc_status, details(error.text), ((CODE_KEY, error.code),))


def refusing_handler(error: NodeError) -> RpcHandler:
    """Return a handler that ends every call with ``error`` without reading anything of it."""

    async def answer(_messages: Any, context: Context) -> None:
        await refuse(context, error)

    return grpc.stream_stream_rpc_method_handler(answer)


def no_key_handler(told: Callable[[str], None]) -> RpcHandler:
    """Return a handler that refuses who has no key, and tells nothing by which a node could be recognised.

    Args:
        told: Takes the caller of each such call, as the library names it.

    Returns:
        The handler.
    """

    async def answer(_messages: Any, context: Context) -> None:
        told(context.peer())
        await abort(context, UnauthenticatedError.grpc_status, WRONG_KEY)

    return grpc.stream_stream_rpc_method_handler(answer)

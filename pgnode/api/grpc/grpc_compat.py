"""Everything that the node relies on in the gRPC library beyond what it promises; the tests of this module hold it to that.

What is relied on, with grpcio 1.85:

* A handler that is registered as one for a stream, and that is a coroutine function, reads by itself (``context.read()``), gets
  bytes where no deserializer is given, and something else than bytes at the end of what the caller sends. Nothing is read
  ahead of it.
* Each call is served by an asyncio task of its own, which is cancelled when the caller goes, and not when the call is aborted.
  A write that fails raises :data:`WriteError` in the handler.
* One message from a handler for streams is, on the wire, what a handler for single messages sends.
* ``abort`` takes trailing metadata as a plain tuple, and raises.
* A server asks for its certificate at every handshake, and None means "as before".
* A server that was started serves in a task of its own, known by the name of its coroutine. That task ends where a call's path
  is no UTF-8, and no call is taken any more; nothing else tells of it.
* The library logs, with a traceback, what cannot be sent to a caller who has gone (an :data:`WriteError`, unless it knew
  already), and headers that are no text (a UnicodeDecodeError), with what they hold. Its logger has a name of its own.
* The reflection service has a form for asyncio.
* The threads that work on connections have a name of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final, NoReturn, TypeAlias

import grpc
from grpc import aio
from grpc_reflection.v1alpha import reflection, reflection_pb2

from pgnode import dependencies

#: A call, on the server's side.
Context: TypeAlias = aio.ServicerContext[Any, Any]

#: What serves the calls of one method; generic in the stubs alone.
RpcHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

#: What a write raises that the caller does not take any more.
WriteError = aio.InternalError

#: The name of the coroutine in which a server serves.
_SERVES = "AioServer._server_main_loop"

#: The library's own logger, of what becomes of calls.
_LOGGER: Final = "grpc._cython.cygrpc"

#: What the threads are called that read, take apart and write what comes and goes on connections.
CORE_THREADS: Final = "event_engine"

#: Certificate chain and key, PEM.
CertificatePair: TypeAlias = tuple[bytes, bytes]


def check() -> None:
    """Refuse versions of the gRPC library whose insides are not known.

    Raises:
        DependencyError: It is missing or has another version.
    """
    dependencies.check("grpcio")


async def abort(context: Context, status: str, text: str, trailing: tuple[tuple[str, str], ...] = ()) -> NoReturn:
    """End a call with an error.

    Args:
        context: The call.
        status: Name of the status, such as "UNAVAILABLE".
        text: The details; they travel in a header.
        trailing: Trailing metadata.
    """
    # A plain tuple: aio's server takes no Metadata here, whatever its stubs say.
    metadata: Any = trailing
    await context.abort(grpc.StatusCode[status], text, metadata)
    raise AssertionError("abort raises")


def when_call_ends(ended: Callable[[bool], None]) -> None:
    """Have a function called when the call is over that the running task serves.

    Args:
        ended: Takes whether the caller was there to the end.
    """
    call = asyncio.current_task()
    assert call is not None

    def over(task: asyncio.Task[object]) -> None:
        ended(not task.cancelled() and not task.cancelling() and task.exception() is None)

    call.add_done_callback(over)


async def start(server: aio.Server) -> asyncio.Event:
    """Start a server.

    Args:
        server: The server.

    Returns:
        Set when it serves no more, of its own accord or because it was stopped.
    """
    ended = asyncio.Event()

    def over(task: asyncio.Task[Any]) -> None:
        # Asked for, so that nobody complains that it was not.
        if not task.cancelled():
            task.exception()
        ended.set()

    before = asyncio.all_tasks()
    await server.start()
    for task in asyncio.all_tasks() - before:
        # Another one waits for a call, and ends with the first.
        if getattr(task.get_coro(), "__qualname__", "") == _SERVES:
            task.add_done_callback(over)
    return ended


def tell_nothing_twice(loop: asyncio.AbstractEventLoop) -> None:
    """Keep a loop from complaining that a server has ended over a path that is no text: :func:`start` has told of it.

    The library ends such a server once more when it is thrown away, in a task that nobody waits for.
    """

    def handle(complaining: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), UnicodeDecodeError):
            complaining.default_exception_handler(context)

    loop.set_exception_handler(handle)


def tell_nothing_of_what_callers_do() -> None:
    """Keep the library from logging that a caller has gone before its answer, or has sent headers that are no text.

    Anybody may do so, as often as they like; and what is in such a header may be meant as the key.
    """
    logging.getLogger(_LOGGER).addFilter(_is_of_another_kind)


def _is_of_another_kind(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], WriteError | UnicodeDecodeError))


async def discard(server: aio.Server) -> None:
    """End what is left of a server that has ended of its own accord."""
    with contextlib.suppress(Exception):
        await server.stop(None)


def certificate_that_changes(
    read: Callable[[], CertificatePair], changed: Callable[[], bool]
) -> grpc.ServerCredentials:
    """Make credentials for a server that takes a new certificate without a restart.

    Args:
        read: Reads certificate chain and key.
        changed: Whether there is a new pair; asked at every handshake, one after the other, in threads of the library's.

    Returns:
        The credentials.
    """

    def configuration() -> grpc.ServerCertificateConfiguration:
        certificate, key = read()
        return grpc.ssl_server_certificate_configuration([(key, certificate)])

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        return configuration() if changed() else None

    # None means "as before", which the stubs do not know.
    return grpc.dynamic_ssl_server_credentials(
        configuration(),
        renewed,  # type: ignore[arg-type]
        require_client_authentication=False,
    )


def reflection_handler(services: Iterable[str]) -> RpcHandler:
    """Make the handler of the reflection service's one method.

    Args:
        services: The services that it tells of.

    Returns:
        The handler.
    """
    servicer = reflection.aio.ReflectionServicer(tuple(services))  # type: ignore[attr-defined]
    return grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )

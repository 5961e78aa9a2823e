"""One gRPC worker: ``python -m pgnode.worker.grpc_worker [CHANNEL]``.

CHANNEL is the file number of its end of the channel to the supervisor (:mod:`pgnode.bus.heartbeat`). It is a process of its
own and never forked, since objects of the gRPC library do not survive a fork; several share the port by SO_REUSEPORT.
SIGTERM ends it: it goes on taking calls until its replacement has the port, however long that takes, then those under way
are given :data:`GRACE_SECONDS`. It ends at once, with that grace, when its supervisor has ended. Where others serve the port it
takes its leave as :mod:`pgnode.worker.leaving` says.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING

import grpc
import structlog
import uvloop
from grpc import aio

from pgnode.api.auth import ApiKeys
from pgnode.api.call_audit import CallAudit
from pgnode.api.callers import AllowedCallers, WrongKeys
from pgnode.api.grpc import grpc_compat, health, reflection
from pgnode.api.grpc.conduct import Conduct, ConductLimits
from pgnode.api.grpc.handlers import SERVICE, GrpcHandlers
from pgnode.bus.heartbeat import HeartbeatChannel
from pgnode.os_support.aio import end_tasks
from pgnode.os_support.clock import Clock
from pgnode.os_support.collector import spare_what_is_loaded
from pgnode.os_support.connections import Peer, received_bytes
from pgnode.os_support.fault_points import async_fault_point
from pgnode.os_support.lasting import keep_going
from pgnode.os_support.limits import allow_many_files
from pgnode.os_support.malloc import keep_large_blocks_apart
from pgnode.os_support.packet_filter import restrict_listeners
from pgnode.os_support.threads import put_behind
from pgnode.settings.handover import load_handed_over
from pgnode.worker.api_keys import KeyFollower
from pgnode.worker.certificate import CertificateFiles, served_files
from pgnode.worker.leaving import let_arrive, no_call_runs
from pgnode.worker.logging import set_up_logging
from pgnode.worker.meeting import Meeting
from pgnode.worker.node_client import NodeClient
from pgnode.worker.reporting import WorkerFacts

if TYPE_CHECKING:
    from pgnode.settings.model import Settings

log = structlog.get_logger(__name__)

#: Seconds that calls under way get when the worker ends.
GRACE_SECONDS = 4.0

#: Seconds that calls under way get when the worker ends and other workers serve.
LEAVE_SECONDS = 12.0

#: The part of them that is kept for calls which begin just before the server ends.
LAST_SECONDS = 1.0

#: Seconds that callers who have just connected get for their handshakes, where other workers serve. Three ways there and back
#: of 300 ms.
HANDSHAKE_SECONDS = 1.0

#: Room for what is always answered: probes of the panel, health, refusals.
RESERVED_CALLS = 1000

#: Milliseconds after which a connection without a call is closed, politely: the next call opens another. The panel's
#: probe comes every ten seconds, so its connection is never without one for so long.
IDLE_MS = 300_000

#: Milliseconds between the pings that find callers who have gone without closing, and that an answer may take.
PING_MS, PING_ANSWER_MS = 60_000, 20_000

#: Calls that one connection may have open; its caller waits with further ones. Enough for a panel, which is one connection
#: with its viewers of logs, and so few that calls of others do not wait long behind those of one.
CONNECTION_CALLS = 64

#: How much less the library's threads are preferred than the one that answers calls, in steps of ``nice``. What comes in floods
#: is taken in by them, and whoever floods is stopped by the other one.
CORE_THREADS_BEHIND = 5

#: The library cancels calls, whosever they are, where so many times of what is served at once wait.
PENDING_FACTOR = 8


def server_options(settings: Settings) -> list[tuple[str, int]]:
    """Return the channel arguments (grpc_types.h of the gRPC library tells of each)."""
    return [
        ("grpc.so_reuseport", 1),
        # Told before the message is taken: its length comes first.
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", CONNECTION_CALLS),
        # Calls that are taken back at once wait in that queue, too, for a moment.
        ("grpc.server.max_pending_requests", PENDING_FACTOR * all_calls(settings)),
        ("grpc.server.max_pending_requests_hard_limit", 2 * PENDING_FACTOR * all_calls(settings)),
        ("grpc.server_handshake_timeout_ms", int(settings.header_timeout_seconds * 1000)),
        ("grpc.max_connection_idle_ms", IDLE_MS),
        ("grpc.keepalive_time_ms", PING_MS),
        ("grpc.keepalive_timeout_ms", PING_ANSWER_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        # Callers may ping as often as they like. The library's own way with those who ping too often costs far more than their
        # pings: it notes for each further one that the connection is to be ended. See conduct.py for what is done instead.
        ("grpc.http2.max_ping_strikes", 0),
    ]


def all_calls(settings: Settings) -> int:
    """Return how many calls the library lets through at once; the handlers' own limits are below."""
    return settings.grpc_max_calls + settings.grpc_max_streams + RESERVED_CALLS


def credentials(settings: Settings) -> grpc.ServerCredentials:
    """Make the credentials of the node's certificate; the files are checked again with every handshake."""
    files = CertificateFiles(*served_files(settings))
    return grpc_compat.certificate_that_changes(files.read, files.changed)


def address(settings: Settings) -> str:
    """Return where to listen."""
    host = f"[{settings.node_host}]" if ":" in settings.node_host else settings.node_host
    return f"{host}:{settings.grpc_listen[1]}"


def make_handlers(
    client: NodeClient, settings: Settings, keys: ApiKeys, conduct: Conduct, audit: CallAudit | None = None
) -> GrpcHandlers:
    """Make the handlers, with health, and with reflection where it is wanted."""
    reflected = reflection.handlers((SERVICE, health.SERVICE, *reflection.SERVICES)) if settings.grpc_reflection else {}
    return GrpcHandlers(
        client.service,
        api_key=keys,
        body_timeout_seconds=settings.body_timeout_seconds,
        max_calls=settings.grpc_max_calls,
        max_streams=settings.grpc_max_streams,
        conduct=conduct,
        meter=client.meter.face("grpc"),
        audit=audit,
        extra_handlers={
            **health.handlers(lambda: keys.refusal is None and client.follower.is_serving()),
            **reflected,
        },
        open_paths=health.PATHS if settings.grpc_health == "open" else (),
    )


def make_server(handlers: GrpcHandlers, settings: Settings) -> aio.Server:
    """Make a server with its port; it is not started yet."""
    server = aio.server(options=server_options(settings), maximum_concurrent_rpcs=all_calls(settings))
    server.add_generic_rpc_handlers((handlers,))
    server.add_secure_port(address(settings), credentials(settings))
    networks = allowed_callers(settings).networks
    if networks:
        try:
            # It listens, and accepts nobody yet.
            restrict_listeners(settings.grpc_listen[1], networks)
        except OSError as error:
            log.warning("callers that may not connect are refused after the handshake only", error=str(error))
    return server


def allowed_callers(settings: Settings) -> AllowedCallers:
    """Return who may call."""
    return AllowedCallers(settings.caller_networks, settings.local_hosts)


def look(port: int) -> dict[Peer, int]:
    """Look at how much has come from whom, and keep the library's threads behind: it makes others as it needs them."""
    put_behind(grpc_compat.CORE_THREADS, CORE_THREADS_BEHIND)
    return received_bytes(port)


async def serve(
    settings: Settings,
    channel_number: int | None,
    *,
    grace_seconds: float = GRACE_SECONDS,
    leave_seconds: float = LEAVE_SECONDS,
    handshake_seconds: float = HANDSHAKE_SECONDS,
) -> None:
    """Serve until told to end.

    Args:
        settings: The node's settings.
        channel_number: File number of the channel to the supervisor; None for a worker that was started by hand.
        grace_seconds: Seconds that calls under way get at the end.
        leave_seconds: Seconds that they get in place of these where other workers serve.
        handshake_seconds: Seconds that callers who have just connected get before that.

    Raises:
        RuntimeError: The port cannot be used.
    """
    told_to_end = asyncio.Event()
    loop = asyncio.get_running_loop()
    grpc_compat.tell_nothing_twice(loop)
    grpc_compat.tell_nothing_of_what_callers_do()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_end.set)
    channel = HeartbeatChannel(channel_number)
    clock = Clock()
    conduct = Conduct(
        clock,
        ConductLimits(connections=settings.max_connections_per_address),
        wrong_keys=WrongKeys(settings.wrong_key_limit, clock.now),
        allowed=allowed_callers(settings),
    )
    facts = WorkerFacts("grpc", cut_off=lambda: conduct.cut_off, not_allowed=lambda: conduct.not_allowed)
    client = NodeClient(settings, facts)
    await client.start()
    follower = KeyFollower(settings)
    meeting = Meeting(follower.keys, takes_keys=follower.is_told)
    client.follower.snapshots.tell(meeting.met)
    audit = CallAudit(follower.keys)
    handlers = make_handlers(client, settings, follower.keys, conduct, audit)
    server = make_server(handlers, settings)
    await async_fault_point("grpc_worker.listen")
    ended = await grpc_compat.start(server)
    # What is loaded by now stays, see the REST worker.
    spare_what_is_loaded()
    watching = asyncio.create_task(keep_going("conduct", lambda: conduct.watch(partial(look, settings.grpc_listen[1]))))
    channel.start()
    follower.start()
    try:
        await _first(told_to_end, channel.stop_requested, ended)
        while ended.is_set() and not (told_to_end.is_set() or channel.stop_requested.is_set()):
            # Anybody can do that, also without the key: a path that is no text is enough.
            log.warning("the gRPC library's server has ended over a request, another one takes its place")
            await grpc_compat.discard(server)
            server = make_server(handlers, settings)
            ended = await grpc_compat.start(server)
            await _first(told_to_end, channel.stop_requested, ended)
        if not channel.stop_requested.is_set():
            channel.leave()
            await channel.stop_requested.wait()
        if channel.others_serve:
            await let_arrive(settings.grpc_listen[1], allowed_callers(settings).networks, handshake_seconds)
            handlers.end_viewers()
            until = loop.time() + leave_seconds
            await no_call_runs(client.meter.face("grpc"), leave_seconds - LAST_SECONDS)
            await server.stop(until - loop.time())
        else:
            handlers.end_viewers()
            await server.stop(grace_seconds)
    finally:
        await end_tasks([watching])
        channel.close()
        audit.tell()
        meeting.close()
        await follower.close()
        await client.close()


async def _first(*events: asyncio.Event) -> None:
    """Wait for any of them."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


def main() -> None:
    """Run a worker."""
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    set_up_logging("grpc")
    grpc_compat.check()
    allow_many_files()
    keep_large_blocks_apart()
    uvloop.run(serve(load_handed_over(), int(sys.argv[1]) if len(sys.argv) > 1 else None))


if __name__ == "__main__":
    main()

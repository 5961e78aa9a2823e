"""The supervisor's end of the bus for tests of workers: records every command, and answers as the test decides."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from pgnode.bus import indexed
from pgnode.bus.commands import Command, Kind, Reply
from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.bus.keys import Keys
from pgnode.bus.pipelined_redis import PipelinedRedis
from pgnode.bus.server import CommandServer
from pgnode.bus.snapshot_memory import SnapshotMemory
from pgnode.bus.snapshot_writer import SnapshotWriter
from pgnode.bus.snapshots import (
    BACKEND,
    ONLINE,
    STATE,
    STATS_INBOUNDS,
    STATS_OUTBOUNDS,
    STATS_USERS,
    SYSTEM,
    NodeStatus,
)
from pgnode.bus.state import State
from pgnode.os_support.aio import end_tasks
from pgnode.supervisor.core.log_sender import Counted, LogSender
from pgnode.supervisor.host.log_ring import LogRing
from pgnode.wire import service_pb2 as pb
from tests.support.polling import pause

LOG_LINES_KEPT = 10_000

RUNNING = NodeStatus(
    state=State.RUNNING,
    core_ready=True,
    core_version="26.10.10",
    node_version="0.3.0",
    core_api_error="",
    core_run=1,
)

Handler = Callable[[Command], Reply]


def stat(name: str, link: str, direction: str, value: int) -> pb.Stat:
    return pb.Stat(name=name, link=link, type=direction, value=value)


class StubSupervisor:
    """The supervisor's end of the bus. Records every command; answers by ``handlers``, else with nothing wrong."""

    def __init__(self, url: str) -> None:
        self.keys = Keys("pgnode")
        self.commands: list[Command] = []
        self.handlers: dict[Kind, Handler] = {}
        self.status = RUNNING
        self._redis = connect(url)
        self._server = CommandServer(url, self.keys, block_seconds=0.5)
        #: Shares large snapshots, as the supervisor does.
        self.memory = SnapshotMemory()
        self._snapshots = SnapshotWriter(self.keys, memory=self.memory)
        self._ring = LogRing(LOG_LINES_KEPT)
        self._sender = LogSender(PipelinedRedis(url), self.keys, self._ring, Counted("stub"))
        self._task: asyncio.Task[None] | None = None

    def of_kind(self, kind: Kind) -> list[Command]:
        return [command for command in self.commands if command.kind is kind]

    async def start(self) -> None:
        self._task = asyncio.create_task(self._serve())

    async def close(self) -> None:
        if self._task is not None:
            await end_tasks([self._task])
        self._sender.close()
        await self._server.close()
        await self._redis.aclose()

    async def publish(self, bodies: Mapping[str, bytes]) -> None:
        """New revisions of these snapshots."""
        pipe = self._redis.pipeline()
        for name, body in bodies.items():
            self._snapshots.put(pipe, name, body)
        await pipe.execute()
        self._snapshots.published()

    async def look_again(self) -> None:
        """Do what the supervisor does once a second."""
        await self._snapshots.write_missing(self._redis)

    async def publish_all(self) -> None:
        """One of everything: users alice and bob, of whom alice is online from two addresses."""
        alice = pb.StatResponse(
            stats=[stat("alice", "traffic", "uplink", 10), stat("alice", "traffic", "downlink", 20)]
        )
        bob = pb.StatResponse(stats=[stat("bob", "traffic", "uplink", 5)])
        online = pb.StatsOnlineIpListResponse(name="alice", ips={"192.0.2.1": 100, "192.0.2.2": 200})
        inbound = pb.StatResponse(stats=[stat("VLESS", "traffic", "uplink", 7)])
        await self.publish(
            {
                STATE: self.status.encode(),
                SYSTEM: pb.SystemStatsResponse(mem_total=1000, cpu_cores=2).SerializeToString(),
                BACKEND: pb.BackendStatsResponse(num_goroutine=42, uptime=7).SerializeToString(),
                STATS_USERS: _block({"alice": alice.SerializeToString(), "bob": bob.SerializeToString()}),
                STATS_INBOUNDS: _block({"VLESS": inbound.SerializeToString()}),
                STATS_OUTBOUNDS: _block({}),
                ONLINE: _block({"alice": online.SerializeToString()}),
            }
        )

    async def set_state(self, state: str, core_api_error: str = "") -> None:
        self.status = replace(self.status, state=State(state), core_api_error=core_api_error)
        await self.publish({STATE: self.status.encode()})

    async def set_keep_alive(self, seconds: int) -> None:
        """Workers are to tell of calls."""
        self.status = replace(self.status, keep_alive_seconds=seconds)
        await self.publish({STATE: self.status.encode()})

    async def log_lines(self, lines: Sequence[bytes]) -> None:
        block = b"\n".join(lines)
        self._ring.put(block, time.time(), len(lines))
        self._sender.put(block, len(lines))
        await self._sender.pass_on()

    async def _serve(self) -> None:
        while True:
            try:
                for command in await self._server.take():
                    handler = self.handlers.get(command.kind)
                    if command.kind is Kind.WATCH_LOGS:
                        reply = Reply(body=await self._sender.watch_asked(command))
                        await self._sender.pass_on()
                    elif command.kind is Kind.BRING:
                        self.commands.append(command)
                        reply = Reply(b"%d" % await self._snapshots.bring(self._redis, command.body.decode()))
                    else:
                        self.commands.append(command)
                        reply = handler(command) if handler is not None else Reply()
                    pipe = self._redis.pipeline()
                    self._server.answer(pipe, [(command, reply)])
                    await pipe.execute()
                    self._server.release([command])
            except BUS_ERRORS:
                self._server.lost_connection()
                await pause()


def _block(parts: Mapping[str, bytes]) -> bytes:
    return indexed.pack((indexed.name_hash(name), part) for name, part in parts.items())

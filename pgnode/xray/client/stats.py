"""Client of the core's StatsService: counters, online users, and the figures of the process. Counters are never reset."""

from __future__ import annotations

import asyncio
from typing import Final

from pgnode.xray.client.channel import CoreChannel, decode_answer
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from pgnode.xray.proto import stats_command_pb2 as pb

_SERVICE: Final = "/xray.app.stats.command.StatsService/"


class StatsClient:
    """Statistics of one running core.

    Every ``deadline_seconds`` bounds the whole method. Every method may raise CoreApiError.
    """

    def __init__(self, channel: CoreChannel) -> None:
        self._channel = channel

    def __repr__(self) -> str:
        return f"<StatsClient {self._channel!r}>"

    async def sys_stats(self, deadline_seconds: float, *, wait_for_ready: bool = False) -> pb.SysStatsResponse:
        """Read memory, goroutines and uptime of the core.

        Args:
            deadline_seconds: Seconds until the call is given up.
            wait_for_ready: Wait for a connection instead of failing without one.

        Returns:
            The core's own figures.
        """
        answer = await self._channel.call(
            _SERVICE + "GetSysStats", b"", deadline_seconds, wait_for_ready=wait_for_ready
        )
        return decode_answer(pb.SysStatsResponse, answer)

    async def query_stats(self, pattern: str, deadline_seconds: float) -> pb.QueryStatsResponse:
        """Read all counters whose name holds ``pattern``; values in bytes since the core's start."""
        return decode_answer(pb.QueryStatsResponse, await self._query_stats(pattern, deadline_seconds))

    async def query_stats_pieces(self, pattern: str, deadline_seconds: float) -> list[bytes]:
        """Do what :meth:`query_stats` does, but return each ``Stat`` as the bytes it came in."""
        return await _pieces(await self._query_stats(pattern, deadline_seconds))

    async def _query_stats(self, pattern: str, deadline_seconds: float) -> bytes:
        request = pb.QueryStatsRequest(pattern=pattern).SerializeToString()
        return await self._channel.call(_SERVICE + "QueryStats", request, deadline_seconds)

    async def get_stat(self, name: str, deadline_seconds: float) -> int | None:
        """Read the counter of exactly this name, in bytes; None when the core has none."""
        return await self._stat("GetStats", name, deadline_seconds)

    async def online_count(self, email: str, deadline_seconds: float) -> int | None:
        """Count the addresses that the user is online from; None when the core has no entry for the user."""
        return await self._stat("GetStatsOnline", _online_name(email), deadline_seconds)

    async def _stat(self, method: str, name: str, deadline_seconds: float) -> int | None:
        answer = await self._named(method, name, deadline_seconds)
        return None if answer is None else decode_answer(pb.GetStatsResponse, answer).stat.value

    async def online_ips(self, email: str, deadline_seconds: float) -> dict[str, int] | None:
        """Read the addresses the user is online from, with the Unix second each was last seen; None without an entry."""
        answer = await self._named("GetStatsOnlineIpList", _online_name(email), deadline_seconds)
        return None if answer is None else dict(decode_answer(pb.GetStatsOnlineIpListResponse, answer).ips)

    async def _named(self, method: str, name: str, deadline_seconds: float) -> bytes | None:
        request = pb.GetStatsRequest(name=name).SerializeToString()
        try:
            return await self._channel.call(_SERVICE + method, request, deadline_seconds)
        except CoreApiError as error:
            if error.kind is ErrorKind.NOT_FOUND:
                return None
            raise

    async def online_users(self, deadline_seconds: float) -> set[str]:
        """Read the e-mails of all users that are online."""
        answer = await self._channel.call(_SERVICE + "GetAllOnlineUsers", b"", deadline_seconds)
        names = decode_answer(pb.GetAllOnlineUsersResponse, answer).users
        return {name.removeprefix("user>>>").removesuffix(">>>online") for name in names}

    async def online(self, deadline_seconds: float) -> dict[str, dict[str, int]]:
        """Read the e-mail of each online user and its addresses, each with the Unix second it was last seen."""
        answer = await self.users_stats(deadline_seconds, include_traffic=False)
        return {user.email: {entry.ip: entry.last_seen for entry in user.ips} for user in answer.users}

    async def users_stats(self, deadline_seconds: float, *, include_traffic: bool = True) -> pb.GetUsersStatsResponse:
        """Read addresses, last-seen times and, if asked, traffic of the users that are online; of nobody else."""
        answer = await self._users_stats(deadline_seconds, include_traffic=include_traffic)
        return decode_answer(pb.GetUsersStatsResponse, answer)

    async def users_stats_pieces(self, deadline_seconds: float, *, include_traffic: bool) -> list[bytes]:
        """Do what :meth:`users_stats` does, but return each ``UserStat`` as the bytes it came in."""
        return await _pieces(await self._users_stats(deadline_seconds, include_traffic=include_traffic))

    async def _users_stats(self, deadline_seconds: float, *, include_traffic: bool) -> bytes:
        request = pb.GetUsersStatsRequest(include_traffic=include_traffic).SerializeToString()
        return await self._channel.call(_SERVICE + "GetUsersStats", request, deadline_seconds)


def _online_name(email: str) -> str:
    return f"user>>>{email}>>>online"


async def _pieces(answer: bytes) -> list[bytes]:
    # In a thread: an answer of 100,000 users takes some ten milliseconds to cut.
    return list((await asyncio.to_thread(decode_answer, pb.Pieces, answer)).piece)

"""The node's methods without any transport: what a call is checked for and where its answer comes from.

Every handler takes the bytes of the request's message. Reads are answered from the worker's own copy of the snapshots and are
plain functions that return the bytes of the response's message. Calls that change something, or whose delivery is tracked, go to
the supervisor and return an awaitable (see :mod:`pgnode.api.service.tracked`). Errors are those of :mod:`pgnode.errors`.

What is ``cached`` in the table has, beside its handler, a function ``…_cached``: it returns the answer where it is at hand, else
None, and then the handler knows why. A protocol may ask it first, and spare itself everything that waiting and refusing take.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from pgnode.api.service.changes import ChangeCalls
from pgnode.api.service.info_reads import InfoReads
from pgnode.api.service.ports import Commands, LogEntry, LogSource, Reads, Refresh
from pgnode.api.service.routing import RoutingCalls
from pgnode.api.service.state import StateChecks
from pgnode.api.service.stats_queries import StatQueries
from pgnode.api.service.stats_reads import StatsReads


class NodeService:
    """One object per worker that answers every method of :data:`pgnode.api.methods.METHODS`.

    Args:
        reads: The worker's snapshots.
        commands: The way to the supervisor.
        logs: Where log lines come from.
        refresh: Fetches newer snapshots.
        write_timeout_seconds: How long a start or a change of users may take.
        node_version: The worker's own version, told to callers until the supervisor has said its.
        on_call: Called for calls with the key, while the supervisor wants to know of them.
        max_body_bytes: Size of all messages of one stream together.
        queries: Parses what is asked of the statistics.
    """

    def __init__(
        self,
        reads: Reads,
        commands: Commands,
        logs: LogSource,
        refresh: Refresh,
        *,
        write_timeout_seconds: float,
        node_version: str,
        on_call: Callable[[], None] = lambda: None,
        max_body_bytes: int = 64 * 1024 * 1024,
        queries: StatQueries | None = None,
    ) -> None:
        self._reads = reads
        self._logs = logs
        self._on_call = on_call
        state = StateChecks(reads, refresh)
        info = InfoReads(reads, state, node_version=node_version)
        stats = StatsReads(reads, commands, state, write_timeout_seconds=write_timeout_seconds, queries=queries)
        changes = ChangeCalls(
            commands, refresh, write_timeout_seconds=write_timeout_seconds, max_body_bytes=max_body_bytes
        )
        routing = RoutingCalls(commands, write_timeout_seconds=write_timeout_seconds)

        # The handlers, by the names that the table of methods gives them. Bound once: a call pays for no further step.
        self.info = info.info
        self.info_cached = info.info_cached
        self.system_stats = info.system_stats
        self.backend_stats = info.backend_stats
        self.backend_stats_cached = info.backend_stats_cached
        self.stats = stats.stats
        self.stats_cached = stats.stats_cached
        self.user_online = stats.user_online
        self.user_online_ips = stats.user_online_ips
        self.start = changes.start
        self.stop = changes.stop
        self.sync_user = changes.sync_user
        self.sync_user_stream = changes.sync_user_stream
        self.sync_users = changes.sync_users
        self.sync_users_chunked = changes.sync_users_chunked
        self.sync_users_chunked_stream = changes.sync_users_chunked_stream
        self.outbounds_latency = routing.outbounds_latency
        self.list_rules = routing.list_rules
        self.add_rule = routing.add_rule
        self.remove_rule = routing.remove_rule
        self.balancer_info = routing.balancer_info
        self.override_balancer = routing.override_balancer
        self.test_route = routing.test_route

        #: Whether the answer of :attr:`stats` to a body is tracked, if it is not an error.
        self.is_tracked = stats.is_tracked
        #: Seconds since the core was read for the statistics; None where it was not yet.
        self.stats_age = reads.age_seconds

    def __repr__(self) -> str:
        return f"NodeService({self._reads.status})"

    def called(self) -> None:
        """Note a call that brought the key; both protocols do so for every one.

        The supervisor may want to know that the panel is there.
        """
        status = self._reads.status
        if status is not None and status.keep_alive_seconds:
            self._on_call()

    def logs(self) -> AbstractAsyncContextManager[AsyncIterator[LogEntry]]:
        """Open the log, in every state, for as long as the context is entered."""
        return self._logs.watch()

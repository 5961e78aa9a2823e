"""The table of the node's methods: REST routes, gRPC handlers and the documents are made from it. Pure.

Adding a method means one row here and one handler on :class:`pgnode.api.service.node_service.NodeService`;
``make docs`` writes the documents anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from google.protobuf.message import Message

from pgnode.errors import (
    BusUnavailableError,
    CoreNotStartedError,
    CoreUnavailableError,
    DeadlineExceededError,
    InternalError,
    InvalidRequestError,
    LengthRequiredError,
    NodeError,
    NotFoundError,
    NotInitializedError,
    StartFailedError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
    UsersRefusedError,
)
from pgnode.wire import service_pb2 as pb

HttpMethod = Literal["GET", "POST", "PUT", "DELETE"]


@dataclass(frozen=True, slots=True)
class Method:
    """One method of the node, over both protocols."""

    #: Its name in gRPC's ``service.NodeService``.
    grpc_name: str
    http_method: HttpMethod
    #: REST path without a trailing slash; it answers with one too.
    path: str
    #: The message that a call carries; over REST a chunked sync carries a run of framed ones.
    request: type[Message]
    response: type[Message]
    #: Name of the handler on NodeService. All take the body's bytes; see there for what they return.
    handler: str
    #: One sentence for the documents.
    summary: str
    #: The answer is a stream that lasts as long as the caller stays.
    streaming: bool = False
    #: In gRPC the caller sends a stream of ``request``.
    client_streaming: bool = False
    #: It works in every state of the node. All others need a core: without one they say which error of NEEDS_CORE.
    any_state: bool = False
    #: What it may answer beside EVERY_CALL, MESSAGE_CALL and NEEDS_CORE.
    errors: tuple[type[NodeError], ...] = ()
    #: The handler may return a TrackedResponse; the protocol has to tell whether it arrived.
    tracked: bool = False
    #: It tells what was read from the core some time ago; over REST the answer says how long (``Age``), except with ``reset``.
    aged: bool = False
    #: Asked often, and the answer is nearly always at hand: NodeService has a function for just that (``…_cached``).
    cached: bool = False
    #: Called for one user after the other: over REST its handler is awaited without Falcon.
    direct: bool = False

    @property
    def route(self) -> tuple[HttpMethod, str]:
        """Its HTTP method and path."""
        return self.http_method, self.path

    @property
    def takes_body(self) -> bool:
        """Whether the call carries a message, which may still be empty."""
        return self.request is not pb.Empty

    @property
    def name(self) -> str:
        """What it is called where calls are counted."""
        return self.grpc_name

    @property
    def group(self) -> Literal["", "read", "change", "start"]:
        """The methods with which its time is counted; "" where a call lasts as long as its caller wants."""
        if self.streaming:
            return ""
        if self.grpc_name in ("Start", "Stop"):
            return "start"
        return "read" if self.http_method == "GET" or self.grpc_name in ("GetBalancerInfo", "TestRoute") else "change"

    @property
    def stream_handler(self) -> str:
        """The name of the handler that takes an iterator of message bytes; only with ``client_streaming``."""
        return f"{self.handler}_stream"

    @property
    def cached_handler(self) -> str:
        """The name of the function that returns the answer to a body, or None where it is not at hand; only with ``cached``."""
        return f"{self.handler}_cached"

    @property
    def all_errors(self) -> tuple[type[NodeError], ...]:
        """The errors that it may answer, by status."""
        found: set[type[NodeError]] = {*EVERY_CALL, *self.errors}
        if self.takes_body:
            found.update(MESSAGE_CALL)
            if self.http_method in ("PUT", "POST"):
                found.add(LengthRequiredError)
        if not self.any_state:
            found.update(NEEDS_CORE)
        return tuple(sorted(found, key=lambda error: (error.status, error.code)))


#: What any call may answer.
EVERY_CALL = (UnauthenticatedError, InternalError)
#: What a call that takes a message may answer, too.
MESSAGE_CALL = (InvalidRequestError, TooLargeError)
#: What a call that needs a core answers without one: none was started, or it is being started or brought back.
NEEDS_CORE = (NotInitializedError, CoreNotStartedError)
#: What a call that goes to the supervisor may answer.
_BY_SUPERVISOR = (BusUnavailableError, DeadlineExceededError)


METHODS: tuple[Method, ...] = (
    Method(
        "Start",
        "POST",
        "/start",
        pb.Backend,
        pb.BaseInfoResponse,
        "start",
        "Starts the core with a config and its users; a running core is changed only as far as the config differs.",
        any_state=True,
        errors=(StartFailedError, UnsupportedError, *_BY_SUPERVISOR),
    ),
    Method(
        "Stop",
        "PUT",
        "/stop",
        pb.Empty,
        pb.Empty,
        "stop",
        "Stops the node; its core keeps running for a while, so that a start soon after drops no connection.",
        any_state=True,
        errors=_BY_SUPERVISOR,
    ),
    Method(
        "GetBaseInfo",
        "GET",
        "/info",
        pb.Empty,
        pb.BaseInfoResponse,
        "info",
        "Versions, and whether the core runs; answers in every state.",
        any_state=True,
        cached=True,
    ),
    Method(
        "GetLogs",
        "GET",
        "/logs",
        pb.Empty,
        pb.Log,
        "logs",
        "The lines of core and node as they are logged, after a short replay of the last ones.",
        streaming=True,
        any_state=True,
    ),
    Method(
        "GetSystemStats",
        "GET",
        "/stats/system",
        pb.Empty,
        pb.SystemStatsResponse,
        "system_stats",
        "Memory, processor, network and uptime of the machine; answers in every state.",
        any_state=True,
        errors=(BusUnavailableError,),
    ),
    Method(
        "GetBackendStats",
        "GET",
        "/stats/backend",
        pb.Empty,
        pb.BackendStatsResponse,
        "backend_stats",
        "The core's own runtime figures; the panel's health probe.",
        errors=(CoreUnavailableError, BusUnavailableError),
        cached=True,
    ),
    Method(
        "GetStats",
        "GET",
        "/stats",
        pb.StatRequest,
        pb.StatResponse,
        "stats",
        "Traffic of one or all users, inbounds or outbounds; with `reset` the counters in the answer start from zero again. "
        "An inbound that the core does not count is a 404.",
        errors=(CoreUnavailableError, NotFoundError, *_BY_SUPERVISOR),
        tracked=True,
        aged=True,
        cached=True,
    ),
    Method(
        "GetOutboundsLatency",
        "GET",
        "/stats/latency",
        pb.LatencyRequest,
        pb.LatencyResponse,
        "outbounds_latency",
        "What the core's observatory measured for its outbounds: all, or the one named.",
        errors=(NotFoundError, CoreUnavailableError, UnavailableError, *_BY_SUPERVISOR),
    ),
    Method(
        "GetUserOnlineStats",
        "GET",
        "/stats/user/online",
        pb.StatRequest,
        pb.OnlineStatResponse,
        "user_online",
        "Number of addresses that one user is online from; 404 when there is none.",
        errors=(NotFoundError, CoreUnavailableError, BusUnavailableError),
        aged=True,
    ),
    Method(
        "GetUserOnlineIpListStats",
        "GET",
        "/stats/user/online_ip",
        pb.StatRequest,
        pb.StatsOnlineIpListResponse,
        "user_online_ips",
        "Addresses that one user is online from, with the second each was last seen; 404 when there is none.",
        errors=(NotFoundError, CoreUnavailableError, BusUnavailableError),
        aged=True,
    ),
    Method(
        "SyncUser",
        "PUT",
        "/user/sync",
        pb.User,
        pb.Empty,
        "sync_user",
        "Adds or changes one user, or removes it when it has no inbounds.",
        client_streaming=True,
        errors=(UsersRefusedError, CoreUnavailableError, *_BY_SUPERVISOR),
        direct=True,
    ),
    Method(
        "SyncUsers",
        "PUT",
        "/users/sync",
        pb.Users,
        pb.Empty,
        "sync_users",
        "Replaces the node's users with exactly these.",
        errors=(UsersRefusedError, CoreUnavailableError, *_BY_SUPERVISOR),
    ),
    Method(
        "SyncUsersChunked",
        "PUT",
        "/users/sync/chunked",
        pb.UsersChunk,
        pb.Empty,
        "sync_users_chunked",
        "Adds, changes or removes the users listed, in chunks, and leaves all others alone.",
        client_streaming=True,
        errors=(UsersRefusedError, CoreUnavailableError, *_BY_SUPERVISOR),
    ),
    Method(
        "ListRoutingRules",
        "GET",
        "/routing/rules",
        pb.Empty,
        pb.RoutingRulesResponse,
        "list_rules",
        "The core's routing rules in their order: the outbound of each, and its tag.",
        errors=(CoreUnavailableError, *_BY_SUPERVISOR),
    ),
    Method(
        "AddRoutingRule",
        "PUT",
        "/routing/rules",
        pb.AddRoutingRuleRequest,
        pb.Empty,
        "add_rule",
        "Appends one routing rule, or replaces all rules with it; kept until another config is started.",
        errors=(UnsupportedError, CoreUnavailableError, *_BY_SUPERVISOR),
    ),
    Method(
        "RemoveRoutingRule",
        "DELETE",
        "/routing/rules",
        pb.RemoveRoutingRuleRequest,
        pb.Empty,
        "remove_rule",
        "Removes one routing rule; kept until another config is started.",
        errors=(NotFoundError, CoreUnavailableError, *_BY_SUPERVISOR),
    ),
    Method(
        "GetBalancerInfo",
        "POST",
        "/routing/balancer",
        pb.BalancerInfoRequest,
        pb.BalancerInfoResponse,
        "balancer_info",
        "The outbound that a balancer is fixed to, and those that its strategy chooses from.",
        errors=(NotFoundError, CoreUnavailableError, *_BY_SUPERVISOR),
    ),
    Method(
        "OverrideBalancerTarget",
        "PUT",
        "/routing/balancer/override",
        pb.OverrideBalancerTargetRequest,
        pb.Empty,
        "override_balancer",
        "Fixes a balancer to one outbound; without a target it chooses again.",
        errors=(NotFoundError, CoreUnavailableError, *_BY_SUPERVISOR),
    ),
    Method(
        "TestRoute",
        "POST",
        "/routing/test",
        pb.TestRouteRequest,
        pb.RouteResult,
        "test_route",
        "The outbound that the core's routing would choose for a connection; the first one where no rule decides.",
        errors=(CoreUnavailableError, *_BY_SUPERVISOR),
    ),
)

#: The rows by HTTP method and path; paths without a trailing slash.
BY_ROUTE: dict[tuple[str, str], Method] = {(row.http_method, row.path): row for row in METHODS}

"""What is known of a request beside its scope: what the pipeline found out, and what the server offers.

The pipeline attaches one :class:`RequestContext` to each request that it hands to an application. The server may attach a
:class:`ServerConnection` before that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from pgnode.api.rest.asgi import Receive, Scope
from pgnode.api.rest.negotiation import JsonForm
from pgnode.api.service.tracked import Settle
from pgnode.metrics.meter import OK

_CONTEXT: Final = "pgnode.request"
#: Where a server puts the :class:`ServerConnection` of a request into its scope.
CONNECTION: Final = "pgnode.connection"


@dataclass(slots=True)
class RequestContext:
    """One request, after the key, the body and the wanted form were checked."""

    #: The whole body.
    body: bytes
    #: The server's own ``receive``: a stream learns through it that its caller has gone.
    receive: Receive
    #: Which sides of the call are JSON; None where both are protobuf.
    json_form: JsonForm | None = None
    #: Whom to tell whether the answer arrived; set by the handler of an answer that is tracked.
    settle: Settle | None = None
    #: The answer is on loan, whatever became of it.
    taken: bool = False
    #: What was answered: OK, or the code of an error.
    code: str = OK


class Delivery(Protocol):
    """One answer on its way, watched from before its first byte."""

    async def arrived(self, answer_bytes: int) -> bool:
        """Wait until the answer has arrived or cannot arrive any more; this ends by itself.

        Args:
            answer_bytes: The size of the answer with its headers, at least.

        Returns:
            Whether the peer's kernel has all of it.
        """

    def close(self, answer_bytes: int) -> bool:
        """Stop watching, and return what :meth:`arrived` would return now."""


class ServerConnection(Protocol):
    """What a server may offer of the connection that a request came on."""

    def watch_delivery(self) -> Delivery:
        """Begin to watch the answer that is about to be written."""

    def close_after_answer(self) -> None:
        """Make the answer that is about to be written the connection's last one."""

    def answer_is_endless(self) -> None:
        """Keep the connection although its caller takes nothing for a long time, but not for longer than the worker serves."""


def attach_context(scope: Scope, context: RequestContext) -> None:
    """Attach ``context`` to the request of ``scope``."""
    scope[_CONTEXT] = context


def context_of(scope: Scope) -> RequestContext:
    """Return the context of a request that has passed the pipeline."""
    context: RequestContext = scope[_CONTEXT]
    return context


def connection_of(scope: Scope) -> ServerConnection | None:
    """Return what the server offers of the request's connection; None where it offers nothing."""
    connection: ServerConnection | None = scope.get(CONNECTION)
    return connection

"""What every request passes: the key, the body's form and size, the wait for the whole of it, and the fast path.

An ASGI callable for scopes of type ``http``. Behind it a handler either has the whole body or is not called. No answer waits
for a body that will not be read: such an answer says ``connection: close``, and what still arrives is thrown away for a moment
so that the caller gets to read the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import perf_counter
from typing import NamedTuple, Protocol

from pgnode.api.auth import NO_KEY_YET, WRONG_KEY
from pgnode.api.call_audit import CallAudit
from pgnode.api.callers import WrongKeys
from pgnode.api.rest.asgi import App, Headers, Receive, Scope, Send
from pgnode.api.rest.auth_step import AuthStep
from pgnode.api.rest.body import DRAIN_SECONDS, BodyReader, check_framing, drain, receive_nothing
from pgnode.api.rest.context import RequestContext, attach_context, connection_of
from pgnode.api.rest.delivery import TrackedRoute
from pgnode.api.rest.errors import ErrorForm, FormChoice, error_form, send_error
from pgnode.api.rest.fast_path import (
    CachedAnswer,
    DirectHandler,
    RouteKey,
    RoutePolicy,
    answer_directly,
    send_chunks,
    send_whole,
)
from pgnode.api.rest.negotiation import PROTOBUF, JsonForm, is_json_body, prefers_json
from pgnode.api.rest.response_chunks import CHUNK_BYTES
from pgnode.api.rest.whole_answers import WholeAnswers
from pgnode.errors import MethodNotAllowedError, NodeError, NotFoundError, UnauthenticatedError, UnavailableError
from pgnode.metrics.meter import CANCELLED, OK, FaceMeter
from pgnode.wire.texts import path_shown

_PROTOBUF = PROTOBUF.encode()


class Route(Protocol):
    """What the pipeline has to know of a method."""

    @property
    def http_method(self) -> str:
        """The HTTP method."""

    @property
    def path(self) -> str:
        """The path, without a slash at its end."""

    @property
    def takes_body(self) -> bool:
        """Whether the call carries a message."""

    @property
    def name(self) -> str:
        """What it is called where calls are counted."""

    @property
    def group(self) -> str:
        """The methods with which its time is counted; "" where it is not."""


class _Request(NamedTuple):
    """A request that is refused."""

    scope: Scope
    receive: Receive
    send: Send
    has_body: bool


class RequestPipeline:
    """The ASGI callable. Serves one event loop; requests share nothing but its settings.

    Args:
        app: Answers the requests of routes that there are, where the pipeline does not do so itself.
        routes: The methods that there are.
        auth: The first step.
        body: The second step.
        json_only: No body may be protobuf.
        error_form: Chooses the form of the pipeline's own errors.
        cached: Routes whose answers are often at hand.
        direct: Routes whose handlers are awaited here.
        tracked: Routes whose answers may be tracked.
        meter: Counts the calls.
        wrong_keys: Counts those without a right key by address; where one is over the limit, the connection is closed.
        audit: Takes note of those that change something.
        drain_seconds: Time for which the rest of a refused body is thrown away.
    """

    def __init__(
        self,
        app: App,
        routes: Iterable[Route],
        auth: AuthStep,
        body: BodyReader,
        *,
        json_only: bool = False,
        error_form: FormChoice = error_form,
        cached: Mapping[RouteKey, CachedAnswer] | None = None,
        direct: Mapping[RouteKey, DirectHandler] | None = None,
        tracked: Mapping[RouteKey, TrackedRoute] | None = None,
        meter: FaceMeter | None = None,
        wrong_keys: WrongKeys | None = None,
        audit: CallAudit | None = None,
        drain_seconds: float = DRAIN_SECONDS,
    ) -> None:
        self._app = app
        self._admits = auth.admits
        self._keys = auth.keys
        self._body = body
        self._json_only = json_only
        self._error_form = error_form
        self._drain_seconds = drain_seconds
        self._wrong_keys = wrong_keys
        self._audit = audit
        self._meter = meter if meter is not None else FaceMeter(perf_counter)
        self._policies: dict[RouteKey, RoutePolicy] = {}
        for route in routes:
            key = (route.http_method, route.path)
            policy = RoutePolicy(
                cached=(cached or {}).get(key),
                direct=(direct or {}).get(key),
                tracked=(tracked or {}).get(key),
                takes_body=route.takes_body,
                needs_length=route.takes_body and route.http_method in ("PUT", "POST"),
                line=self._meter.line(route.name, route.group),
                taken_line=self._meter.line(route.name, "take"),
                audited=(route.name, route.group) if audit is not None and audit.takes(route.group) else None,
            )
            self._policies[key] = policy
            self._policies[route.http_method, route.path.rstrip("/") + "/"] = policy
        #: Answers requests of which everything is there, where whoever serves HTTP asks for that first.
        self.whole = WholeAnswers(
            {} if json_only else self._policies,
            auth,
            max_bytes=body.max_bytes,
            error_form=error_form,
            meter=self._meter,
            audit=audit,
        )

    def __repr__(self) -> str:
        return f"RequestPipeline({len(self._policies)} routes, {self._body})"

    @property
    def routes(self) -> frozenset[RouteKey]:
        """All routes, each with and without a slash at its end."""
        return frozenset(self._policies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        raw_headers = scope["headers"]
        headers: dict[bytes, bytes] = dict(raw_headers)
        length = headers.get(b"content-length")
        coding = headers.get(b"transfer-encoding")
        has_body = coding is not None or (length is not None and length != b"0")
        meter = self._meter
        key = self._admits(headers)
        if not key:
            client = scope["client"]
            limited = self._wrong_keys is not None and self._wrong_keys.came(client[0] if client else "")
            meter.refused(limited=limited)
            error: NodeError = UnauthenticatedError(WRONG_KEY) if self._keys.is_known else UnavailableError(NO_KEY_YET)
            request = _Request(scope, receive, send, has_body)
            await self._refuse(request, error, self._error_form(headers, False), close=limited)
            return
        # As FaceMeter.begin does.
        meter.key_uses[key] += 1
        line, code, begun = meter.other, CANCELLED, meter.now()
        policy = None
        try:
            if (refusal := self._keys.refusal) is not None:
                code = refusal.code
                request = _Request(scope, receive, send, has_body)
                await self._refuse(request, refusal, self._error_form(headers, True))
                return
            policy = self._policies.get((scope["method"], scope["path"]))
            if policy is None:
                error, allow = self._unknown(scope["method"], scope["path"])
                code = error.code
                request = _Request(scope, receive, send, has_body)
                await self._refuse(request, error, self._error_form(headers, True), allow)
                return
            line = policy.line

            body = b""
            json_body = False
            if has_body or policy.needs_length:
                try:
                    if length is None or coding is not None or len(headers) != len(raw_headers):
                        check_framing(length, coding, raw_headers)
                    content_type = headers.get(b"content-type")
                    if policy.takes_body and (content_type != _PROTOBUF or self._json_only):
                        json_body = is_json_body(content_type, json_only=self._json_only)
                    found = self._body.read_now(length, receive)
                    body = found if isinstance(found, bytes) else await self._body.read_rest(found)
                except NodeError as refused:
                    code = refused.code
                    request = _Request(scope, receive, send, has_body)
                    await self._refuse(request, refused, self._error_form(headers, True))
                    return

            accept = headers.get(b"accept")
            json_answer = accept is not None and accept != b"*/*" and prefers_json(accept)
            if json_body or json_answer:
                json_form = JsonForm(json_body, json_answer)
            else:
                json_form = None
                cached = policy.cached
                if cached is not None and (answer := cached.find(body)) is not None:
                    await send({"type": "http.response.start", "status": 200, "headers": cached.headers(answer)})
                    if len(answer) > CHUNK_BYTES:
                        await send_chunks(send, answer)
                        answer = b""
                    await send({"type": "http.response.body", "body": answer})
                    code = OK
                    return
                direct = policy.direct
                if direct is not None:
                    route = scope["method"], scope["path"]
                    whole, code = await answer_directly(direct, body, headers, route, self._error_form)
                    await send_whole(send, whole)
                    return

            context = RequestContext(body, receive, json_form)
            attach_context(scope, context)
            tracked = policy.tracked
            if tracked is not None and (json_form is not None or tracked.is_tracked(body)):
                await tracked(scope, receive_nothing, send)
            else:
                await self._app(scope, receive_nothing, send)
            code = context.code
            if context.taken:
                line = policy.taken_line
        finally:
            meter.end(line, code, begun)
            if policy is not None and policy.audited is not None and self._audit is not None:
                client = scope["client"]
                self._audit.ended(*policy.audited, client[0] if client else "", key, code)

    def _unknown(self, method: str, path: str) -> tuple[NodeError, Headers]:
        """Return the error for a route that there is not, and its headers."""
        allowed = ", ".join(known for known, known_path in self._policies if known_path == path)
        if not allowed:
            return NotFoundError(f"no such endpoint: {path_shown(path)}"), []
        return MethodNotAllowedError(f"{method} is not allowed here, {allowed} is"), [(b"allow", allowed.encode())]

    async def _refuse(
        self,
        request: _Request,
        error: NodeError,
        form: ErrorForm,
        headers: Headers | None = None,
        *,
        close: bool = False,
    ) -> None:
        """Answer ``error`` in place of the application; a body that was not read ends the connection, and so does ``close``."""
        scope, receive, send, has_body = request
        head_only = scope["method"] == "HEAD"
        if not has_body and not close:
            await send_error(send, error, form, headers, head_only=head_only)
            return
        if (connection := connection_of(scope)) is not None:
            connection.close_after_answer()
        await send_error(send, error, form, [*(headers or ()), (b"connection", b"close")], head_only=head_only)
        if has_body:
            await drain(receive, self._drain_seconds)

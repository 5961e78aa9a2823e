"""Answers to requests of which everything is there, for the methods that are called most often.

Whoever serves HTTP asks here before it calls the ASGI application. What it would do for each message of an application costs
more than such a call: a task, a scope, a look at each header of the answer. Here the answer is one object. Whatever is unusual
about a request is left to the application, which has the same policies and gives, to the byte, the same answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from pgnode.api.call_audit import CallAudit
from pgnode.api.rest.asgi import Headers
from pgnode.api.rest.auth_step import AuthStep
from pgnode.api.rest.errors import FormChoice
from pgnode.api.rest.fast_path import DirectHandler, RouteKey, RoutePolicy, WholeAnswer, answer_directly
from pgnode.api.rest.negotiation import PROTOBUF, prefers_json
from pgnode.api.rest.response_chunks import CHUNK_BYTES
from pgnode.metrics.meter import CANCELLED, OK, FaceMeter

_PROTOBUF = PROTOBUF.encode()

#: HTTP method, path, headers, the caller's address, body -> the answer, what to await for it, or None; see :class:`WholeAnswers`.
FindAnswer = Callable[[str, str, Headers, str, bytes], WholeAnswer | Awaitable[WholeAnswer] | None]


class WholeAnswers:
    """Finds them. Serves one event loop.

    Args:
        policies: What is done with the requests of each route.
        auth: Decides whether a request goes on.
        max_bytes: Size of the largest body.
        error_form: Chooses the form of errors.
        meter: Counts the calls.
        audit: Takes note of those that change something.
    """

    def __init__(
        self,
        policies: Mapping[RouteKey, RoutePolicy],
        auth: AuthStep,
        *,
        max_bytes: int,
        error_form: FormChoice,
        meter: FaceMeter,
        audit: CallAudit | None,
    ) -> None:
        self._policies = {
            route: policy
            for route, policy in policies.items()
            if policy.cached is not None or policy.direct is not None
        }
        self._admits = auth.admits
        self._keys = auth.keys
        self._max_bytes = max_bytes
        self._error_form = error_form
        self._meter = meter
        self._audit = audit

    def __repr__(self) -> str:
        return f"WholeAnswers({len(self._policies)} routes)"

    def find(
        self, method: str, path: str, raw_headers: Headers, caller: str, body: bytes
    ) -> WholeAnswer | Awaitable[WholeAnswer] | None:
        """Answer a request.

        Args:
            method: The HTTP method.
            path: The path.
            raw_headers: All headers, names in lower case.
            caller: The caller's address, "" where there is none.
            body: The whole body.

        Returns:
            The answer, or what to await for it; None where the application has to be asked, and nothing was done yet.
        """
        policy = self._policies.get((method, path))
        if policy is None:
            return None
        headers: dict[bytes, bytes] = dict(raw_headers)
        length, accept = headers.get(b"content-length"), headers.get(b"accept")
        if len(headers) != len(raw_headers) or b"transfer-encoding" in headers:
            return None
        if length is None:
            if body or policy.needs_length:
                return None
        elif (
            length != b"%d" % len(body)
            or len(body) > self._max_bytes
            or (policy.takes_body and headers.get(b"content-type", _PROTOBUF) != _PROTOBUF)
        ):
            return None
        if accept is not None and accept != b"*/*" and prefers_json(accept):
            return None
        key = self._admits(headers)
        if not key or self._keys.refusal is not None:
            return None
        cached = policy.cached
        if cached is not None:
            begun = self._meter.now()
            answer = cached.find(body)
            if answer is not None and len(answer) <= CHUNK_BYTES:
                self._meter.key_uses[key] += 1
                self._meter.end(policy.line, OK, begun)
                return WholeAnswer(200, cached.headers(answer), answer)
        direct = policy.direct
        if direct is None:
            return None
        return self._directly(direct, policy, (method, path), headers=headers, caller=caller, key=key, body=body)

    async def _directly(
        self,
        direct: DirectHandler,
        policy: RoutePolicy,
        route: RouteKey,
        *,
        headers: Mapping[bytes, bytes],
        caller: str,
        key: str,
        body: bytes,
    ) -> WholeAnswer:
        meter = self._meter
        code, begun = CANCELLED, meter.begin(key)
        try:
            answer, code = await answer_directly(direct, body, headers, route, self._error_form)
            return answer
        finally:
            meter.end(policy.line, code, begun)
            if policy.audited is not None and self._audit is not None:
                self._audit.ended(*policy.audited, caller, key, code)

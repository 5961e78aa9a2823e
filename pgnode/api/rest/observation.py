"""Metrics and health over HTTP, beside the maintenance API: with a key, as everything on a public port."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pgnode.api.auth import ApiKeys
from pgnode.api.callers import WrongKeys
from pgnode.api.rest.asgi import App, Receive, Scope, Send
from pgnode.api.rest.auth_step import AuthStep
from pgnode.api.rest.body import DRAIN_SECONDS, BodyReader
from pgnode.api.rest.context import context_of
from pgnode.api.rest.errors import DETAIL_FORM, answerable, send_error
from pgnode.api.rest.pipeline import RequestPipeline
from pgnode.api.service.monitor_pages import PAGES, Page
from pgnode.api.service.observation import Observation
from pgnode.metrics.meter import FaceMeter

#: Bytes of a body, which nobody needs.
_MAX_BODY_BYTES: Final = 1024

#: The largest Accept header that is looked at.
_ACCEPT_MAX: Final = 1000


class WithObservation:
    """The maintenance API, with the pages for monitors before it.

    Args:
        observation: Answers them.
        otherwise: Answers everything else.
        api_key: The keys that callers may send, or one, a UUID; ValueError for anything else.
        metrics_key: Another one for some of the pages; None for none.
        body_timeout_seconds: Time for a whole body.
        meter: Counts the calls.
        called: Called for every request that brings the API key.
        wrong_keys: Counts calls without a right key by address.
        drain_seconds: Time for which a body that nobody needs is thrown away.
    """

    def __init__(
        self,
        observation: Observation,
        otherwise: App,
        *,
        api_key: str | ApiKeys,
        metrics_key: str | None,
        body_timeout_seconds: float,
        meter: FaceMeter,
        called: Callable[[], None] = lambda: None,
        wrong_keys: WrongKeys | None = None,
        drain_seconds: float = DRAIN_SECONDS,
    ) -> None:
        self._otherwise = otherwise
        keys = ApiKeys.of(api_key)
        self._pipelines: dict[str, App] = {}
        for page in PAGES:
            pipeline = RequestPipeline(
                _PageApp(observation, page),
                (page,),
                AuthStep(keys, called, metrics_key if page.with_metrics_key else None),
                BodyReader(max_bytes=_MAX_BODY_BYTES, timeout_seconds=body_timeout_seconds, size_setting=None),
                error_form=lambda _headers, _admitted: DETAIL_FORM,
                meter=meter,
                wrong_keys=wrong_keys,
                drain_seconds=drain_seconds,
            )
            self._pipelines[page.path] = self._pipelines[f"{page.path}/"] = pipeline

    def __repr__(self) -> str:
        return f"WithObservation({', '.join(self._pipelines)})"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._pipelines.get(scope["path"], self._otherwise)(scope, receive, send)


class _PageApp:
    """The application behind the pipeline of one page."""

    def __init__(self, observation: Observation, page: Page) -> None:
        self._answer = getattr(observation, page.name)

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        accept = ",".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"accept")
        try:
            found = await self._answer(accept[:_ACCEPT_MAX])
        except Exception as error:
            refused = answerable(error, scope)
            context_of(scope).code = refused.code
            await send_error(send, refused, DETAIL_FORM)
            return
        headers = [
            (b"content-type", found.media_type.encode()),
            (b"content-length", b"%d" % len(found.body)),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": found.status, "headers": headers})
        await send({"type": "http.response.body", "body": found.body})

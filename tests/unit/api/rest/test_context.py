"""What travels with a request beside its scope."""

from __future__ import annotations

from typing import Any

import pytest

from pgnode.api.rest.context import CONNECTION, RequestContext, attach_context, connection_of, context_of
from pgnode.api.rest.negotiation import JsonForm
from tests.unit.api.fakes import Call


def test_a_request_keeps_what_the_pipeline_found_out() -> None:
    call = Call("GET", "/info", {}, [])
    context = RequestContext(b"body", call.receive, JsonForm(body=True, answer=False))
    attach_context(call.scope, context)
    assert context_of(call.scope) is context
    assert context.settle is None


def test_a_request_that_has_not_passed_has_no_context() -> None:
    with pytest.raises(KeyError):
        context_of({})


def test_a_server_may_offer_its_connection_or_nothing() -> None:
    connection: Any = object()
    scope: dict[str, Any] = {}
    assert connection_of(scope) is None
    scope[CONNECTION] = connection
    assert connection_of(scope) is connection

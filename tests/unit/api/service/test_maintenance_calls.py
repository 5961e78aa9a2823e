"""The table of the maintenance calls."""

from __future__ import annotations

from pgnode.api.service.maintenance import MaintenanceService
from pgnode.api.service.maintenance_calls import CALLS
from pgnode.errors import ConflictError, InternalError, LengthRequiredError, UnauthenticatedError


def test_every_call_has_a_handler_and_a_place_of_its_own() -> None:
    assert all(callable(getattr(MaintenanceService, call.handler)) for call in CALLS)
    assert len({(call.http_method, call.path) for call in CALLS}) == len(CALLS)


def test_errors_are_listed_by_status_and_follow_from_what_a_call_is() -> None:
    for call in CALLS:
        errors = call.all_errors
        assert [error.status for error in errors] == sorted(error.status for error in errors)
        assert {UnauthenticatedError, InternalError, *call.errors} <= set(errors)
        assert (ConflictError in errors) == (call.http_method == "POST")
        assert (LengthRequiredError in errors) == call.takes_body

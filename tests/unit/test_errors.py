"""The tree of errors: every class can be sent over both protocols and made again from its code."""

from __future__ import annotations

from http import HTTPStatus

import grpc
import pytest

from pgnode.errors import (
    BY_CODE,
    CoreNotStartedError,
    InternalError,
    NodeError,
    NotInitializedError,
    UnavailableError,
    from_code,
)


def tree(of: type[NodeError]) -> list[type[NodeError]]:
    return [
        found for child in of.__subclasses__() if child.__module__ == of.__module__ for found in (child, *tree(child))
    ]


def test_every_class_has_a_code_of_its_own() -> None:
    assert sorted(BY_CODE) == sorted(error.code for error in tree(NodeError))


@pytest.mark.parametrize("error", tree(NodeError), ids=lambda error: error.__name__)
def test_an_error_has_statuses_and_survives_the_bus(error: type[NodeError]) -> None:
    HTTPStatus(error.status)
    assert grpc.StatusCode[error.grpc_status] is not grpc.StatusCode.OK
    again = from_code(error.code, "the cause")
    assert (type(again), again.text) == (error, "the cause")
    assert (error.retry_after_seconds is not None) >= issubclass(error, UnavailableError)


def test_an_unknown_code_is_an_internal_error() -> None:
    assert type(from_code("NEW", "x")) is InternalError


def test_texts_that_panels_look_for() -> None:
    assert NotInitializedError().text == "backend not initialized"
    assert CoreNotStartedError().text == "core is not started yet"


def test_an_unexpected_fault_tells_its_type_alone() -> None:
    assert InternalError.of(ValueError("secret")).text == "internal error (ValueError): see the node's log"

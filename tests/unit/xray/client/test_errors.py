"""What an error of the core means is told by its text."""

from __future__ import annotations

import grpc
import pytest

from pgnode.xray.client.errors import CoreApiError, ErrorKind, SwapFailedError, classify, from_failure
from pgnode.xray.transport.outcome import NAMES, Failure

UNKNOWN = grpc.StatusCode.UNKNOWN


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (UNKNOWN, "proxy/vless: User a@x already exists.", ErrorKind.ALREADY_EXISTS),
        (UNKNOWN, "app/proxyman/inbound: existing tag found: in", ErrorKind.ALREADY_EXISTS),
        (UNKNOWN, "proxy/trojan: User a@x not found.", ErrorKind.NOT_FOUND),
        (UNKNOWN, "app/proxyman/inbound: handler not found: in", ErrorKind.NO_HANDLER),
        (UNKNOWN, "not enough information for making a decision", ErrorKind.NO_HANDLER),
        (UNKNOWN, "Unsupported cipher", ErrorKind.REFUSED),
        (grpc.StatusCode.UNIMPLEMENTED, "unknown service", ErrorKind.REFUSED),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", ErrorKind.DEADLINE),
        (grpc.StatusCode.UNAVAILABLE, "", ErrorKind.UNAVAILABLE),
        (grpc.StatusCode.CANCELLED, "", ErrorKind.UNAVAILABLE),
    ],
)
def test_kinds(code: grpc.StatusCode, text: str, kind: ErrorKind) -> None:
    number = code.value[0]
    assert classify(number, text) is kind
    failed = from_failure(Failure(number, text))
    assert failed.kind is kind
    assert str(failed) == (text or code.name.lower().replace("_", " "))


def test_every_status_has_the_name_that_grpc_gives_it() -> None:
    assert [code.value for code in grpc.StatusCode] == list(enumerate(NAMES))


def test_a_status_that_grpc_does_not_know_is_unknown() -> None:
    assert from_failure(Failure(99, "")).kind is ErrorKind.REFUSED


def test_the_reason_is_the_innermost_cause() -> None:
    error = CoreApiError("app/proxyman: failed > proxy/shadowsocks: Unsupported cipher.", ErrorKind.REFUSED)
    assert error.reason == "Unsupported cipher"
    assert SwapFailedError("x", ErrorKind.REFUSED, restored=True).restored

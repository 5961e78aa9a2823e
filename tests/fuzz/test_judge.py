"""What the fuzzers take for a finding."""

from __future__ import annotations

import pytest

from pgnode.wire import service_pb2 as pb
from tests.fuzz import http2, judge
from tests.fuzz.cases import GrpcCase, HttpCase
from tests.fuzz.judge import Answer, RpcAnswer
from tests.fuzz.senders import Outcome
from tests.fuzz.stage import faults_of

SYNC = ("PUT", "/user/sync")


def raw(status: int, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def error(status: int, code: str, text: str = "what is wrong", **headers: str) -> Answer:
    return Answer(status, {"x-error-code": code, **headers}, text.encode())


def test_answers_are_read_one_after_the_other() -> None:
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    data = b"HTTP/1.1 100 Continue\r\n\r\n" + raw(200, b"xy") + chunked + raw(400, b"no", "x-error-code: A")
    found = judge.answers(data)
    assert [(answer.status, answer.body, answer.code) for answer in found] == [
        (200, b"xy", ""),
        (200, b"abc", ""),
        (400, b"no", "A"),
    ]
    assert judge.answers(b"") == []


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0\r\n\r\n",
        raw(200, b"abc")[:-1],
        b"HTTP/1.1 200 OK\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        raw(200, b"", "server: gunicorn"),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3",
    ],
)
def test_what_is_no_answer(data: bytes) -> None:
    with pytest.raises(judge.Malformed):
        judge.answers(data)


def test_errors_that_the_contract_knows() -> None:
    assert judge.fault_of_http(SYNC, error(400, "INVALID_ARGUMENT")) == ""
    assert judge.fault_of_http(SYNC, error(500, "USER_REJECTED", "failed to update users: a: b")) == ""
    assert judge.fault_of_http(("POST", "/start"), error(503, "START_FAILED", **{"retry-after": "1"})) == ""
    assert judge.fault_of_http(("POST", "/node/geofiles"), error(409, "CONFLICT")) == ""
    assert judge.fault_of_http(None, error(431, "INVALID_ARGUMENT")) == ""
    json_error = Answer(400, {}, b'{"error": "what is wrong", "code": "INVALID_ARGUMENT"}')
    assert judge.fault_of_http(SYNC, json_error) == ""


@pytest.mark.parametrize(
    ("route", "answer", "word"),
    [
        (SYNC, error(500, "INTERNAL"), "not known"),
        (SYNC, error(504, "DEADLINE_EXCEEDED"), "not known"),
        (SYNC, error(503, "CORE_NOT_STARTED"), "not known"),
        (SYNC, error(404, "NOT_FOUND"), "not known"),
        (SYNC, Answer(400, {}, b"<html>"), "without a code"),
        (SYNC, error(400, "INVALID_ARGUMENT", ""), "0 characters"),
        (SYNC, error(400, "INVALID_ARGUMENT", "a" * 5000), "5000 characters"),
        (SYNC, error(400, "INVALID_ARGUMENT", "a\nb"), "control"),
        (SYNC, error(500, "USER_REJECTED", "no"), "rejected"),
        (("POST", "/start"), error(503, "START_FAILED"), "Retry-After"),
        (SYNC, Answer(200, {"content-type": "application/json"}, b"{"), "cannot be read"),
        (("GET", "/info"), Answer(200, {}, b"\xff"), "cannot be read"),
        (("POST", "/node/geofiles"), error(500, "INTERNAL"), "not known"),
    ],
)
def test_errors_that_are_findings(route: tuple[str, str], answer: Answer, word: str) -> None:
    assert word in judge.fault_of_http(route, answer)


def rpc(*headers: tuple[bytes, bytes], flags: int = http2.END_HEADERS | http2.END_STREAM) -> bytes:
    return http2.Frame(http2.HEADERS, flags, 1, http2.header_block(headers)).encode()


def test_how_calls_over_grpc_end() -> None:
    data = rpc((b":status", b"200"), flags=http2.END_HEADERS)
    assert not judge.is_over(data)
    assert judge.rpc_answers(data) == []
    data += rpc((b"grpc-status", b"3"), (b"grpc-message", b"no"), (b"error-code", b"INVALID_ARGUMENT"))
    assert judge.is_over(data)
    assert judge.rpc_answers(data) == [RpcAnswer(3, "INVALID_ARGUMENT", "no")]
    assert judge.rpc_answers(http2.Frame(http2.RST_STREAM, 0, 1, b"\0\0\0\1").encode()) == [RpcAnswer(None, reset=True)]


def test_statuses_that_the_contract_knows() -> None:
    assert judge.fault_of_rpc("SyncUser", RpcAnswer(0)) == ""
    assert judge.fault_of_rpc("SyncUser", RpcAnswer(None, reset=True)) == ""
    assert judge.fault_of_rpc("SyncUser", RpcAnswer(3, "INVALID_ARGUMENT")) == ""
    assert judge.fault_of_rpc("SyncUser", RpcAnswer(13, "USER_REJECTED")) == ""
    assert judge.fault_of_rpc(None, RpcAnswer(12, "UNIMPLEMENTED")) == ""
    assert judge.fault_of_rpc("SyncUser", RpcAnswer(16)) == ""
    assert judge.fault_of_rpc("SyncUser", RpcAnswer(2)) != ""
    assert judge.fault_of_rpc("SyncUser", RpcAnswer(13, "INTERNAL")) != ""
    assert judge.fault_of_rpc("GetBaseInfo", RpcAnswer(5, "NOT_FOUND")) != ""


def test_lines_of_logs() -> None:
    assert judge.fault_of_log("Traceback (most recent call last):")
    assert judge.fault_of_log("Task exception was never retrieved")
    assert judge.fault_of_log("12:00:00 [info] users applied") == ""


def test_what_is_wrong_with_an_outcome() -> None:
    call = HttpCase((b"GET /info HTTP/1.1\r\n\r\n",), route=("GET", "/info"))
    good = raw(200, pb.BaseInfoResponse(started=True).SerializeToString())
    assert faults_of(call, Outcome(good, 0.1, ended=True)) == []
    assert "within" in faults_of(call, Outcome(b"", 20.0, ended=False))[0]
    assert "without an answer" in faults_of(call, Outcome(b"", 0.1, ended=True))[0]
    assert "no answer, but" in faults_of(call, Outcome(b"x", 0.1, ended=True))[0]
    cut = HttpCase((b"GET",), ending="cuts")
    assert faults_of(cut, Outcome(b"", 0.1, ended=True)) == []
    assert faults_of(HttpCase((b"GET",)), Outcome(b"", 2.0, ended=True)) == []
    odd = HttpCase((b"GET\r\n\r\n",))
    assert "without an answer" in faults_of(odd, Outcome(b"", 0.1, ended=True))[0]
    assert faults_of(HttpCase((*odd.parts, b"more")), Outcome(b"", 0.1, ended=True)) == []
    late = rpc((b"grpc-status", b"4"), (b"error-code", b"DEADLINE_EXCEEDED"))
    assert faults_of(GrpcCase((b"grpc-timeout",), method="GetStats"), Outcome(late, 0.1, ended=True)) == []
    assert faults_of(GrpcCase((b"",), method="GetStats"), Outcome(late, 0.1, ended=True)) != []
    rpc_call = GrpcCase((b"",), method="GetBaseInfo")
    assert "no status" in faults_of(rpc_call, Outcome(b"", 0.1, ended=True))[0]
    assert faults_of(rpc_call, Outcome(rpc((b"grpc-status", b"0")), 0.1, ended=True)) == []

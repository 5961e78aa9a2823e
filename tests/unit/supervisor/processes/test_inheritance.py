"""What one supervisor leaves to the next: written, taken, and read by another version."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator

import pytest

from pgnode.supervisor.processes.inheritance import (
    NOTHING,
    VARIABLE,
    Inheritance,
    InheritedProcess,
    close_all,
    decode,
    encode,
    leave,
    take,
)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    close_all(ends)


def whole(reader: int, writer: int) -> Inheritance:
    return Inheritance(
        lock=reader,
        sockets={"SERVICE_PORT 127.0.0.1 1": writer},
        processes=(InheritedProcess("valkey", 77, ("valkey-server", "--port", "0"), output=reader, rest="hal\xff"),),
        restarts=3,
        failures=(1.5, 2.5),
        core_rest="half a li",
        revision=9,
    )


def test_all_of_it_comes_through(pipe: tuple[int, int]) -> None:
    left = whole(*pipe)
    environment = {"HOME": "/", **leave(left)}
    assert all(os.get_inheritable(number) for number in pipe)
    taken = take(environment)
    assert taken == left
    assert environment == {"HOME": "/"}
    assert not any(os.get_inheritable(number) for number in pipe), "children of the next one get none of it"
    assert taken.pids == {77}
    found = taken.process("valkey")
    assert found is not None
    assert found.pid == 77
    assert taken.process("gunicorn") is None


def test_another_version_may_say_more_or_less(pipe: tuple[int, int]) -> None:
    document = json.loads(encode(whole(*pipe)))
    document["news"] = 1
    document["processes"][0]["news"] = 1
    del document["revision"]
    assert decode(json.dumps(document).encode()).revision == 0
    assert decode(b"{}") == NOTHING


@pytest.mark.parametrize("nonsense", [b"", b"[]", b"{", b'{"processes": [1]}', b'{"processes": [{"name": "x"}]}'])
def test_nonsense_is_told(nonsense: bytes) -> None:
    with pytest.raises(ValueError, match=r"no inheritance|Expecting"):
        decode(nonsense)


def test_a_start_of_its_own_has_nothing() -> None:
    assert take({}) is None
    assert take({VARIABLE: "no number"}) is None
    reader, writer = os.pipe()
    os.write(writer, b"no document")
    os.close(writer)
    assert take({VARIABLE: str(reader)}) is None


def test_without_memory_files_a_file_without_a_name_does(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> int:
        raise OSError("not permitted")

    monkeypatch.setattr(os, "memfd_create", forbidden)
    assert take(dict(leave(whole(*pipe)))) == whole(*pipe)


def test_closing_what_is_closed_harms_nobody(pipe: tuple[int, int]) -> None:
    close_all([pipe[0], pipe[0]])
    with pytest.raises(OSError, match="Bad file"):
        fcntl.fcntl(pipe[0], fcntl.F_GETFD)

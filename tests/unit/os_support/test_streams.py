"""Writing to standard output and error neither fails nor waits, whoever reads them."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgnode.os_support.streams import SafeStream, drain, make_safe, open_missing, say

#: Seconds within which a thread has surely come to its turn.
LONG = 20.0


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for number in (reader, writer):
        try:
            os.close(number)
        except OSError:
            continue


def test_what_is_written_arrives_in_order(pipe: tuple[int, int]) -> None:
    stream = SafeStream(pipe[1])
    for number in range(100):
        assert stream.write(f"{number}\n") == len(f"{number}\n")
    assert stream.drain(LONG)
    assert os.read(pipe[0], 65536).decode().split() == [str(number) for number in range(100)]
    assert stream.dropped == 0
    assert repr(stream) == f"SafeStream({pipe[1]}, 0 bytes waiting, 0 dropped)"


def test_it_is_a_text_stream(pipe: tuple[int, int]) -> None:
    stream = SafeStream(pipe[1], "ISO-8859-1")
    assert (stream.fileno(), stream.isatty(), stream.writable()) == (pipe[1], False, True)
    assert (stream.encoding, stream.errors) == ("iso8859-1", "backslashreplace")
    stream.flush()
    print("ü─", file=stream)
    assert stream.drain(LONG)
    assert os.read(pipe[0], 100) == b"\xfc\\u2500\n"


def test_an_unknown_character_set_is_none() -> None:
    assert SafeStream(1, "no such set").encoding == "utf-8"


def test_a_reader_that_hangs_holds_nobody_up_and_is_told_what_was_dropped(pipe: tuple[int, int]) -> None:
    stream = SafeStream(pipe[1], waiting_bytes=10_000)
    for _ in range(200):
        stream.write("x" * 999 + "\n")
    assert stream.dropped > 100
    assert not stream.drain(0)
    found = b""
    while b"dropped" not in found:
        stream.write("more\n")
        found += os.read(pipe[0], 65536)
    assert b"log lines dropped: they could not be written]\n" in found


@pytest.mark.parametrize("path", ["/dev/full", "closed"])
def test_what_cannot_be_written_is_dropped_and_counted(path: str, pipe: tuple[int, int]) -> None:
    if path == "closed":
        os.close(pipe[0])
        number = pipe[1]
    else:
        number = os.open(path, os.O_WRONLY)
    stream = SafeStream(number)
    for count in (1, 2, 3):  # what is dropped is not tried again and again
        stream.write("lost\n")
        assert stream.drain(LONG)
        assert stream.dropped == count
    if path != "closed":
        os.close(number)


def test_a_descriptor_that_somebody_made_non_blocking_is_waited_for(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    stream = SafeStream(pipe[1])
    text = "y" * 300_000
    stream.write(text)
    found = b""
    while len(found) < len(text):
        found += os.read(pipe[0], 65536)
    assert found == text.encode()
    assert stream.dropped == 0


def test_a_forked_child_begins_anew(pipe: tuple[int, int]) -> None:
    stream = SafeStream(pipe[1])
    stream.write("before\n")
    assert stream.drain(LONG)
    child = os.fork()
    if child == 0:
        stream.write("of the child\n")
        os._exit(0 if stream.drain(LONG) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert os.read(pipe[0], 100) == b"before\nof the child\n"


def test_many_threads_may_write(pipe: tuple[int, int]) -> None:
    stream = SafeStream(pipe[1])
    threads = [threading.Thread(target=stream.write, args=("line\n",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stream.drain(LONG)
    assert os.read(pipe[0], 1000) == b"line\n" * 8


@pytest.mark.parametrize("device", [os.devnull, "/dev/no such device"])
def test_a_closed_descriptor_is_opened_again(device: str, pipe: tuple[int, int]) -> None:
    for number in pipe:
        os.close(number)
    open_missing(pipe, device)
    for number in pipe:
        assert os.get_inheritable(number)
        with contextlib.suppress(BrokenPipeError):
            os.write(number, b"swallowed")


def test_the_streams_of_this_process_are_replaced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding="ISO-8859-1"))
    make_safe()
    found = sys.stdout, sys.stderr
    make_safe()
    assert (sys.stdout, sys.stderr) == found
    assert [stream.encoding for stream in found] == ["iso8859-1"] * 2
    assert [stream.fileno() for stream in found] == [1, 2]
    drain(LONG)


def test_draining_waits_for_what_was_printed(monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]) -> None:
    stream = SafeStream(pipe[1])
    monkeypatch.setattr(sys, "stderr", stream)
    print("printed", file=sys.stderr)
    drain(LONG)
    assert "0 bytes waiting" in repr(stream)


PRINTS = """
import sys
from pgnode.os_support import streams
streams.make_safe()
before = sys.stderr
streams.make_safe()
assert sys.stderr is before
file = open(sys.argv[1], "w")
assert file.fileno() > 2, file.fileno()
print("to the one")
print("to the other", file=sys.stderr)
"""


@pytest.mark.parametrize("closed", ["0", "1", "2", "0 1 2"])
def test_a_process_whose_descriptors_are_closed_opens_no_file_in_their_place(closed: str, tmp_path: Path) -> None:
    closing = " ".join(f"{number}>&-" for number in closed.split())
    command = f'exec "{sys.executable}" -c "$PRINTS" "{tmp_path}/file" {closing}'
    done = subprocess.run(
        ["sh", "-c", command], env={**os.environ, "PRINTS": PRINTS}, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (b"" if "1" in closed else b"to the one\n")
    assert done.stderr == (b"" if "2" in closed else b"to the other\n")


def test_what_is_said_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    say("one \x1b[2J\ntwo")
    assert capsys.readouterr().err == "one \\x1b[2J\ntwo\n"

"""What commands print holds nothing that a terminal obeys, and may go to a full disk, or nowhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import pytest

from pgnode.cli import main
from pgnode.cli.output import say, with_outputs
from pgnode.cli.screen import Screen

FULL = Path("/dev/full")


def test_lines_are_safe_and_go_where_they_belong(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[2Jb\nc\u202e")
    say("wrong\r", error=True)
    out, err = capsys.readouterr()
    assert out == "a\\x1b[2Jb\nc\\u202e\n"
    assert err == "wrong\\r\n"


def short() -> None:
    say("a line")


def long() -> None:
    sys.stdout.write("a" * 100_000)


def kept() -> None:
    # Not written before the end of the command.
    sys.stdout.write("a line")


@pytest.mark.parametrize(
    "command",
    [*(partial(with_outputs, command) for command in (short, long, kept)), partial(main, ["--help"])],
    ids=["short", "long", "kept", "help"],
)
@pytest.mark.parametrize("unbuffered", [False, True])
def test_a_full_disk_is_told_in_a_sentence(
    command: Callable[[], None], unbuffered: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = open(FULL, "w", encoding="utf-8")  # noqa: SIM115 - it may be closed at the end alone
    full.reconfigure(write_through=unbuffered)
    monkeypatch.setattr(sys, "stdout", full)
    with pytest.raises(SystemExit) as ended:
        command()
    said = capsys.readouterr().err
    assert (ended.value.code, said) == (
        1,
        "pgnode: standard output cannot be written: No space left on device; make room there, or send it elsewhere\n",
    )
    # The end of the process, which flushes it, does not fail.
    assert sys.stdout is full
    full.close()


def fails() -> None:
    say("pgnode: no node runs", error=True)
    sys.exit(3)


def test_an_exit_code_does_not_depend_on_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    full = open(FULL, "w", encoding="utf-8")  # noqa: SIM115
    monkeypatch.setattr(sys, "stderr", full)
    with pytest.raises(SystemExit) as ended:
        with_outputs(fails)
    assert ended.value.code == 3
    full.close()


def test_closed_outputs_take_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)

    def command() -> str:
        say("a line")
        sys.stdout.write("another")
        sys.stdout.flush()
        say("wrong", error=True)
        with pytest.raises(OSError, match="standard output is closed"):
            sys.stdout.buffer.write(b"")
        return "done"

    assert (with_outputs(command), sys.stdout) == ("done", None)


@pytest.mark.parametrize(
    ("command", "code"), [(short, 1), (kept, 0)], ids=["while it is written", "at the end of the command"]
)
def test_a_reader_that_stops_reading_is_no_fault(
    command: Callable[[], None], code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    gone = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stdout", gone)
    with pytest.raises(SystemExit) as ended:
        with_outputs(lambda: click.command()(command).main([]))
    assert (ended.value.code, capsys.readouterr().err) == (code, "")
    gone.close()


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", "a \\xb7 \\u2026"), ("latin-1", "a · \\u2026"), ("utf-8", "a · …")]
)
def test_what_a_character_set_lacks_is_written_otherwise(
    encoding: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What Python takes in the locale "C".
    with open(tmp_path / "out", "w", encoding=encoding, errors="surrogateescape") as file:
        monkeypatch.setattr(sys, "stdout", file)
        with_outputs(lambda: Screen().line("a · …"))
    assert (tmp_path / "out").read_text(encoding) == f"{shown}\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_json_in_every_character_set(encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"größe": "a · … \udcff"}
    with open(tmp_path / "out", "w", encoding=encoding) as file:
        monkeypatch.setattr(sys, "stdout", file)
        with_outputs(lambda: Screen().json(value))
    assert json.loads((tmp_path / "out").read_text(encoding)) == value


def test_what_else_is_wrong_stays_what_it_is() -> None:
    def command() -> None:
        raise FileNotFoundError("x")

    with pytest.raises(FileNotFoundError):
        with_outputs(command)


def test_a_process_with_closed_outputs_ends_with_its_own_code() -> None:
    words = [sys.executable, "-m", "pgnode", "status", "--bla"]
    found = subprocess.run(["sh", "-c", 'exec "$@" >&- 2>&- <&-', "sh", *words], check=False, timeout=60)
    assert found.returncode == 2

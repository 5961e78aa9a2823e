"""What the operator's commands print. Names in it come from outside, so nothing in it is obeyed by a terminal.

A command may be printing to a full disk, or to nobody. Where its standard output cannot be written it ends with a sentence, since
whoever asked has not been answered. What is said on standard error is a help for people: where that cannot be written the command
goes on, and its exit code says the rest.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar, cast

import click

from pgnode.errors import OperatorError
from pgnode.os_support.log_text import printable_lines
from pgnode.os_support.streams import open_missing

Found = TypeVar("Found")


def say(text: str, *, error: bool = False) -> None:
    """Print one or more lines.

    Args:
        text: The lines, whatever they hold.
        error: To standard error.
    """
    click.echo(printable_lines(text), err=error)


def takes_all_characters(stream: Any = None) -> bool:
    """Return whether the character set of a stream, or of standard output, lacks none."""
    encoding = getattr(stream if stream is not None else sys.stdout, "encoding", None)
    return (encoding or "").lower().startswith("utf")


def with_outputs(command: Callable[[], Found]) -> Found:
    """Carry out a command whose standard output and standard error may be full, or closed.

    A reader that has stopped reading, ``head`` say, is no fault.

    Args:
        command: The command.

    Returns:
        What it returns.

    Raises:
        SystemExit: The command ended, or its standard output could not be written, which is said.
    """
    open_missing()
    before: tuple[Any, Any] = sys.stdout, sys.stderr
    output = _Stream(before[0] or _Nowhere(), _refuse)
    errors = _Stream(before[1] or _Nowhere(), _take_no_notice)
    try:
        with contextlib.redirect_stdout(cast(Any, output)), contextlib.redirect_stderr(cast(Any, errors)):
            try:
                return _to_the_end(command, output)
            except OperatorError as error:
                # Of an output: whatever else is wrong was said by the command.
                say(f"pgnode: {error}", error=True)
                sys.exit(error.exit_code)
    finally:
        for stream in before:
            _let_end(stream)


def _to_the_end(command: Callable[[], Found], output: _Stream) -> Found:
    """Carry out a command, and write what its output kept. Raises OperatorError."""
    try:
        return command()
    finally:
        with contextlib.suppress(BrokenPipeError):
            output.end()


class _Stream:
    r"""An output whose faults are handed to ``on_error``; after the first one nothing more is written.

    Characters that its character set lacks, and bytes that were none, are written as ``\xNN`` or ``\uNNNN``.
    """

    def __init__(self, stream: Any, on_error: Callable[[OSError], None]) -> None:
        # What it kept so far is written first, which may fail: then the first thing that is said does, too.
        with contextlib.suppress(OSError):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        self._stream = stream
        self._on_error = on_error
        self._failed: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text; return the number of its characters."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Write what is kept."""
        self._try(self._stream.flush)

    def end(self) -> None:
        """Write what is kept, unless it was said already that this cannot be done."""
        if self._failed is None:
            self.flush()

    def _try(self, action: Callable[[], object]) -> None:
        if self._failed is None:
            try:
                action()
            except OSError as error:
                self._failed = error
        if self._failed is not None:
            self._on_error(self._failed)


class _Nowhere(io.TextIOBase):
    """Stands for an output that is closed: what commands say is lost, and whoever has bytes to write is told."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The character set."""
        return "utf-8"

    @property
    def buffer(self) -> BinaryIO:
        """Where bytes are written. Raises OSError."""
        raise OSError(errno.EBADF, "standard output is closed")

    def write(self, text: str) -> int:
        """Drop text; return the number of its characters."""
        return len(text)


def _refuse(error: OSError) -> None:
    if isinstance(error, BrokenPipeError):
        raise error
    raise OperatorError(
        f"standard output cannot be written: {error.strerror or error}; make room there, or send it elsewhere"
    ) from None


def _take_no_notice(_error: OSError) -> None:
    """Say nothing: there is nowhere to say it."""


def _let_end(stream: Any) -> None:
    """Keep the end of the process from failing on what could not be written."""
    try:
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
    except (AttributeError, ValueError):
        # Closed.
        return

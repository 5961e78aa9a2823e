"""Where the log lines of this process go: stderr, in the form that is wanted, with the journal's priorities where it is that.

What the standard library's :mod:`logging` is told, warnings, and errors that nobody expected go the same way.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback as tracebacks
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from io import StringIO
from pathlib import Path
from time import time
from types import TracebackType
from typing import Any, Final, Literal, TextIO

from pgnode.os_support import container, log_lines
from pgnode.os_support.log_levels import rank
from pgnode.os_support.log_lines import Entry, LogForm
from pgnode.os_support.log_text import bound_values, print_traceback, printable

#: Tells a process of the node that whoever started it reads its lines as JSON.
LINES_VARIABLE: Final = "PGNODE_LOG_LINES"

#: Names the journal's socket, where stderr is that (systemd.exec(5)).
_JOURNAL_VARIABLE: Final = "JOURNAL_STREAM"


class LogOutput:
    """Writes entries. May be used by any thread.

    Args:
        process: What the process is called.
        form: Text or JSON.
        journal: Whether stderr is the journal, which has a clock of its own.
        out: Where it goes; None: what ``sys.stderr`` is at that time.
    """

    def __init__(self, process: str, form: LogForm = "text", journal: bool = False, out: TextIO | None = None) -> None:
        self.process = process
        self.form: LogForm = form
        self.journal = journal
        self._out = out
        self.shown_from = "debug"
        self._lowest = rank(self.shown_from)

    def __repr__(self) -> str:
        return f"LogOutput({self.process}, {self.form}{', journal' if self.journal else ''})"

    def take_form(self, form: LogForm, *, journal: bool) -> None:
        """Write in this form from now on.

        Args:
            form: Text or JSON.
            journal: Whether stderr is the journal.
        """
        self.form, self.journal = form, journal

    def show_from(self, level: str) -> None:
        """Write only what is at least as grave as a level from now on."""
        self.shown_from, self._lowest = level, rank(level)

    def name_process(self, process: str) -> None:
        """Say what this process is called from now on."""
        self.process = process

    def write(self, entry: Entry) -> None:
        """Write an entry.

        Args:
            entry: The entry.
        """
        if rank(entry.level) < self._lowest:
            return
        stream = self._out if self._out is not None else sys.stderr
        if self.form == "json":
            lines = iter((log_lines.json_line(entry),))
        else:
            colours = not self.journal and stream.isatty()
            lines = log_lines.text_lines(entry, timestamp=not self.journal, colours=colours)
        if self.journal:
            lines = log_lines.prefixed(lines, entry.level)
        # At once, so that lines of several threads are not mixed.
        stream.write("".join(f"{line}\n" for line in lines))

    def entry(self, level: str, message: str, fields: Mapping[str, Any], traceback: str = "") -> Entry:
        """Make an entry of this process, now.

        Args:
            level: Its level.
            message: What happened.
            fields: What belongs to it; printable and short.
            traceback: A traceback.

        Returns:
            The entry.
        """
        return Entry(time(), level, self.process, os.getpid(), message, fields, traceback)


#: Of this process.
PROCESS: Final = LogOutput("pgnode")


def is_journal(environment: Mapping[str, str], descriptor: int = 2) -> bool:
    """Tell whether a descriptor leads to the journal.

    Args:
        environment: JOURNAL_STREAM names the device and the inode of what leads there.
        descriptor: The descriptor.

    Returns:
        Whether it is that; False where JOURNAL_STREAM is of somebody else's stderr.
    """
    device, _, inode = environment.get(_JOURNAL_VARIABLE, "").partition(":")
    try:
        found = os.fstat(descriptor)
        return (found.st_dev, found.st_ino) == (int(device), int(inode))
    except (OSError, ValueError):
        return False


def form_of(
    wanted: LogForm | Literal["auto"],
    environment: Mapping[str, str],
    descriptor: int = 2,
    marks: Sequence[Path] = container.MARKS,
) -> LogForm:
    """Return the form of the lines that go to a descriptor.

    Args:
        wanted: What LOG_FORMAT says; ``auto``: JSON in a container, and text on a terminal, in the journal and everywhere else.
        environment: The environment of the start.
        descriptor: The descriptor.
        marks: Files that only a container has.

    Returns:
        The form.
    """
    if wanted != "auto":
        return wanted
    for_people = is_journal(environment, descriptor) or os.isatty(descriptor)
    return "json" if not for_people and container.in_container(environment, marks) else "text"


def entry_of(output: LogOutput, level: str, event: MutableMapping[str, Any]) -> Entry:
    """Make an entry of an event of structlog's.

    Args:
        output: Where it will go.
        level: Its level.
        event: The event, with bound values; ``exc_info`` is an exception, or says that there is one.

    Returns:
        The entry.
    """
    fields = dict(event)
    message, found, _ = str(fields.pop("event", "")), fields.pop("exc_info", None), fields.pop("level", None)
    if isinstance(found, BaseException):
        found = (type(found), found, found.__traceback__)
    elif found and not isinstance(found, tuple):
        found = sys.exc_info()
    text = traceback_text(found) if isinstance(found, tuple) and found[1] is not None else ""
    return output.entry(level, message, fields, text)


def traceback_text(info: Any) -> str:
    """Write a traceback, without local variables and cut in the middle where it is long.

    Args:
        info: Type, exception and traceback.

    Returns:
        Its lines.
    """
    written = StringIO()
    print_traceback(written, info)
    return written.getvalue().strip("\n")


class StandardHandler(logging.Handler):
    """Passes on what the standard library's :mod:`logging` is told.

    Args:
        output: Where it goes.
        also: Called with each entry.
        as_details: Whether what is only information of who logs here is a detail for the node.
    """

    def __init__(
        self, output: LogOutput, also: Callable[[Entry], None] | None = None, *, as_details: bool = False
    ) -> None:
        super().__init__()
        self._output = output
        self._also = also
        self._as_details = as_details

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record.

        Args:
            record: The record.
        """
        try:
            level = record.levelname.lower()
            if self._as_details and level == "info":
                level = "debug"
            text = traceback_text(record.exc_info) if record.exc_info and record.exc_info[1] is not None else ""
            message = printable(record.getMessage(), log_lines.MESSAGE_MAX)
            entry = self._output.entry(level if level in log_lines.PRIORITIES else "info", message, {}, text)
            self._output.write(entry)
            if self._also is not None:
                self._also(entry)
        except Exception:
            # Whoever logs is not to fail over it.
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Say that a record could not be written, without its values.

        Args:
            record: The record.
        """
        fields: MutableMapping[str, Any] = {"logger": record.name, "error": tracebacks.format_exc(limit=0).strip()}
        bound_values(None, "", fields)
        self._output.write(self._output.entry("error", "a log line could not be written", fields))


def take_standard_logging(output: LogOutput, also: Callable[[Entry], None] | None = None) -> None:
    """Have all that this process says by other ways than structlog go the same way.

    Args:
        output: Where it goes.
        also: Called with each entry of the standard library's logging.
    """
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler, StandardHandler)]
    root.addHandler(StandardHandler(output, also))
    logging.captureWarnings(True)

    def unexpected(
        kind: type[BaseException], error: BaseException | None, trace: TracebackType | None, where: str
    ) -> None:
        if error is None:
            error = kind()
        output.write(
            output.entry("critical", f"an error that nobody expected {where}", {}, traceback_text((kind, error, trace)))
        )

    def of_process(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        unexpected(kind, error, trace, "ended this process")

    def of_thread(hooked: threading.ExceptHookArgs) -> None:
        if hooked.exc_type is not SystemExit:
            unexpected(hooked.exc_type, hooked.exc_value, hooked.exc_traceback, "ended a thread")

    def of_collector(hooked: Any) -> None:
        unexpected(hooked.exc_type, hooked.exc_value, hooked.exc_traceback, "was left behind")

    for module, name, hook in (
        (sys, "excepthook", of_process),
        (threading, "excepthook", of_thread),
        (sys, "unraisablehook", of_collector),
    ):
        setattr(module, name, hook)

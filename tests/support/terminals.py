"""A command on a terminal of its own, and what stands on its screen: enough of a terminal for what this project draws."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import signal
import struct
import termios
from collections.abc import Mapping, Sequence

_SEQUENCE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\x1b[()][A-Z0-9]|\x1b[=>78]")


#: Bytes of what a command wrote that are kept: the end.
_KEPT_BYTES = 20_000


class Screen:
    """What stands where, and which modes are on."""

    def __init__(self, columns: int, lines: int) -> None:
        self.columns, self.lines = columns, lines
        self._cells = [[" "] * columns for _ in range(lines)]
        self._row = self._column = 0
        #: Private modes that are on: "1049" is the other screen, "25" a cursor that is seen.
        self.modes = {"25"}
        self.is_coloured = False

    @property
    def text(self) -> str:
        return "\n".join("".join(row).rstrip() for row in self._cells)

    def feed(self, data: str) -> None:
        at = 0
        for found in _SEQUENCE.finditer(data):
            self._print(data[at : found.start()])
            at = found.end()
            self._obey(found[1] or "", found[2] or "")
        self._print(data[at:])

    def _print(self, text: str) -> None:
        for character in text:
            if character == "\n":
                self._next_line()
            elif character == "\r":
                self._column = 0
            elif character.isprintable():
                if self._column >= self.columns:
                    self._column = 0
                    self._next_line()
                self._cells[self._row][self._column] = character
                self._column += 1

    def _next_line(self) -> None:
        if self._row + 1 < self.lines:
            self._row += 1
        else:
            self._cells = [*self._cells[1:], [" "] * self.columns]

    def _obey(self, arguments: str, command: str) -> None:
        if command in "hl" and arguments.startswith("?"):
            (self.modes.add if command == "h" else self.modes.discard)(arguments[1:])
        elif command == "H":
            numbers = [int(number or 1) for number in arguments.split(";")] if arguments else [1, 1]
            self._row, self._column = min(numbers[0], self.lines) - 1, min(numbers[-1], self.columns) - 1
        elif command == "J" and arguments == "2":
            self._cells = [[" "] * self.columns for _ in range(self.lines)]
        elif command == "K":
            start = 0 if arguments == "2" else self._column
            self._cells[self._row][start:] = [" "] * (self.columns - start)
        elif command == "m":
            self.is_coloured |= any(code in arguments.split(";") for code in ("31", "32", "33", "36"))


class Terminal:
    """A command on a terminal. Use as ``async with``; the command is killed at the end if it still runs."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], *, columns: int = 80, lines: int = 24) -> None:
        self.screen = Screen(columns, lines)
        self._command = command
        # A library of the tests' own process says how large its terminal is; this one has a size of its own.
        self._env = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES")}
        self._ours, self._theirs = os.openpty()
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))
        self._before = termios.tcgetattr(self._theirs)
        self._rest = b""
        #: The end of what it wrote.
        self._written = b""

    async def __aenter__(self) -> Terminal:
        self.process = await asyncio.create_subprocess_exec(
            *self._command,
            env={"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **self._env},
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            start_new_session=True,
        )
        os.set_blocking(self._ours, False)
        asyncio.get_running_loop().add_reader(self._ours, self._read)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._ours)
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            read = os.read(self._ours, 65536)
            self._written = (self._written + read)[-_KEPT_BYTES:]
            data = self._rest + read
            # What is cut in the middle waits for its end: a sequence, or a character.
            cut = data.rfind(b"\x1b")
            whole = data if cut < 0 or _SEQUENCE.match(data[cut:].decode(errors="replace")) else data[:cut]
            while whole and len(whole) > len(data) - 4:
                try:
                    whole.decode()
                    break
                except UnicodeDecodeError:
                    whole = whole[:-1]
            self._rest = data[len(whole) :]
            self.screen.feed(whole.decode(errors="replace"))

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    async def ended(self, seconds: float) -> int:
        """Return the exit code. AssertionError where it goes on: with its screen, and where its threads stand.

        For the latter Python has to be started with ``-X faulthandler``.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self.process.wait()
        except TimeoutError:
            shown = self.screen.text
            self._written = b""
            self.process.send_signal(signal.SIGABRT)
            await self.process.wait()
            self._read()
            said = self._written.decode(errors="replace").replace("\r", "")
            raise AssertionError(f"it has not ended after {seconds:g} s:\n{shown}\n{said}") from None

    @property
    def is_as_before(self) -> bool:
        """Whether keys are read by lines and shown, the usual screen is there, and the cursor is seen."""
        return termios.tcgetattr(self._theirs) == self._before and self.screen.modes == {"25"}

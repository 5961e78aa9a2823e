"""A terminal whose keys are read one by one; whatever happens, it is left as it was found."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import termios
import tty
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

#: Signals that end a command, with their usual exit codes.
_ENDING = (signal.SIGTERM, signal.SIGHUP)

#: What a terminal sends for arrows and the like: Escape, and more at once.
_NO_KEYS = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|O.)")

#: Bytes read of the keyboard at once.
_READ_BYTES = 64


def _nothing() -> None:
    """Do nothing."""


class EndedBySignal(SystemExit):
    """A signal ends the command; whoever holds something lets go of it on the way."""


class Keys:
    """Reads keys while other things happen.

    Args:
        keyboard: Descriptor of the terminal.
    """

    def __init__(self, keyboard: int) -> None:
        self._keyboard = keyboard
        #: Keys that were pressed and not returned yet.
        self._pressed: list[str] = []
        self._woken, self._wake = os.pipe()
        for number in (self._woken, self._wake):
            os.set_blocking(number, False)

    def __repr__(self) -> str:
        return f"Keys({self._keyboard})"

    def wake(self) -> None:
        """Have :meth:`wait` return; for threads and handlers of signals."""
        with contextlib.suppress(OSError):
            os.write(self._wake, b".")

    def wait(self, seconds: float) -> str:
        """Wait for a key.

        Args:
            seconds: Seconds at most.

        Returns:
            The key, such as "q", or Escape as its control character; "" for none that has a meaning, or where it was woken. End
            of input is "q": nobody can press anything any more.
        """
        if self._pressed:
            return self._pressed.pop(0)
        ready, _, _ = select.select([self._keyboard, self._woken], [], [], seconds)
        if self._woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, _READ_BYTES)
        if self._keyboard not in ready:
            return ""
        try:
            pressed = os.read(self._keyboard, _READ_BYTES).decode(errors="replace")
        except OSError:
            # The terminal has gone.
            pressed = ""
        if not pressed:
            return "q"
        self._pressed += _NO_KEYS.sub("", pressed)
        return self._pressed.pop(0) if self._pressed else ""

    def close(self) -> None:
        """Close what belongs to it; whoever wakes it later does nothing."""
        numbers, self._woken, self._wake = (self._woken, self._wake), -1, -1
        for number in numbers:
            os.close(number)


@contextlib.contextmanager
def keys_of(
    keyboard: int, leave: Callable[[], None] = _nothing, enter: Callable[[], None] = _nothing
) -> Iterator[Keys]:
    """Have a terminal give its keys one by one, unseen, until the end of the block.

    Ctrl-C still raises KeyboardInterrupt; what ends a process otherwise becomes :class:`EndedBySignal`, so that blocks are left.

    Args:
        keyboard: Descriptor of the terminal.
        leave: Gives the screen back for as long as the command is stopped by Ctrl-Z.
        enter: Takes it again.

    Yields:
        Its keys.
    """
    before: Any = termios.tcgetattr(keyboard)
    keys = Keys(keyboard)

    def end(number: int, _frame: FrameType | None) -> None:
        raise EndedBySignal(128 + number)

    def resized(_number: int, _frame: FrameType | None) -> None:
        keys.wake()

    def stop(_number: int, _frame: FrameType | None) -> None:
        leave()
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        # Returns when somebody lets it go on.
        os.kill(os.getpid(), signal.SIGSTOP)
        tty.setcbreak(keyboard)
        enter()
        keys.wake()

    handlers = {**dict.fromkeys(_ENDING, end), signal.SIGWINCH: resized, signal.SIGTSTP: stop}
    replaced = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        tty.setcbreak(keyboard)
        yield keys
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)
        with contextlib.suppress(termios.error):
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        keys.close()

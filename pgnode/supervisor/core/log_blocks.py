"""What the core prints, cut into blocks of whole lines that are safe to show. Pure.

Lines are looked at one by one only where a look at the whole block says that there is something in it.
"""

from __future__ import annotations

from typing import Final

from pgnode.os_support.log_text import obeyed_by_terminals, printable_bytes
from pgnode.xray.config.log_section import ID_MARK, without_ids

#: Bytes of the longest line; what is longer is cut: it is no log line.
LINE_MAX_BYTES: Final = 16 * 1024

#: What stands in nearly every line, and needs no second look.
_USUAL: Final = bytes(range(0x20, 0x7F)) + b"\t\n"


class LineCutter:
    """Cuts a stream of bytes behind the last end of a line.

    Args:
        rest: The beginning of the first line.
    """

    def __init__(self, rest: bytes = b"") -> None:
        #: The beginning of a line of which the end has not come yet.
        self.rest = rest

    def __repr__(self) -> str:
        return f"LineCutter({len(self.rest)} bytes of a line)"

    def feed(self, data: bytes) -> bytes | None:
        """Take what was read.

        Args:
            data: Some bytes.

        Returns:
            Whole lines, without the end of the last one; None where there is none. A line without an end is one, too, once it
            is longer than any may be.
        """
        at = data.rfind(b"\n")
        block = None
        if at >= 0:
            block = self.rest + data[:at]
            self.rest = data[at + 1 :]
        else:
            self.rest += data
        if len(self.rest) > LINE_MAX_BYTES:
            block = self.rest if block is None else block + b"\n" + self.rest
            self.rest = b""
        return block


def clean(block: bytes) -> tuple[bytes, int]:
    """Make a block safe to show: users choose names of hosts that stand in lines, and operators look at them on a terminal.

    Args:
        block: Lines of the core.

    Returns:
        The same without empty lines and ends of lines of another system; what a terminal obeys stands as its escape, ids of users
        are hidden, and long lines are cut. Nothing where no line is left. And how many lines these are.
    """
    obeyed = bool(block.translate(None, _USUAL)) and obeyed_by_terminals(block)
    with_ids = ID_MARK in block
    # Quicker than a search for two ends of lines, and than counting them.
    lines = block.split(b"\n")
    if not (obeyed or with_ids or b"" in lines or _has_long_line(block)):
        return block, len(lines)
    found = []
    for raw in lines:
        line = raw[:LINE_MAX_BYTES].rstrip(b"\r")
        if obeyed:
            line = printable_bytes(line)
        if with_ids:
            line = without_ids(line)
        if line:
            found.append(line)
    return b"\n".join(found), len(found)


def _has_long_line(block: bytes) -> bool:
    at = 0
    while len(block) - at > LINE_MAX_BYTES:
        end = block.rfind(b"\n", at, at + LINE_MAX_BYTES + 1)
        if end < 0:
            return True
        at = end + 1
    return False

"""The name of this host as it may stand in keys and log lines, whatever bytes somebody gave the kernel."""

from __future__ import annotations

import socket


def host_name(name: str | None = None) -> str:
    """Return the host's name.

    Args:
        name: The name, in place of the kernel's.

    Returns:
        The name in printable ASCII, without blanks; what is none stands as its escape. "localhost" where it is empty.
    """
    try:
        found = socket.gethostname() if name is None else name
    except (OSError, UnicodeError):
        found = ""
    escaped = found.encode("unicode_escape", "surrogatepass").decode("ascii")
    return "".join(c if c.isprintable() and c != " " else "_" for c in escaped) or "localhost"

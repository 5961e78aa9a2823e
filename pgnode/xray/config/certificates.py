"""Can the core serve the certificates that a config names? It comes up without those that it cannot, and says nothing.

It waits for ever where the file is none: a FIFO, say.
"""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pgnode.xray.config.inbounds import short
from pgnode.xray.config.named_files import certificate_path

#: Bytes of a PEM file, at most.
PEM_BYTES_MAX: Final = 4 * 1024 * 1024

#: What OpenSSL says of a pair that no TLS library serves; what is too weak for it alone is left to the core.
_REASONS: Final = {
    "KEY_VALUES_MISMATCH": "is the key of another certificate",
    "KEY_TYPE_MISMATCH": "is the key of another certificate",
}
_UNREADABLE: Final = frozenset({"NO_START_LINE", "PEM_LIB", "BAD_PASSWORD_READ", "BAD_DECRYPT", None})


def certificate_fault(part: object, cert_dir: Path | None = None) -> str | None:
    """Say what is wrong with the certificates that an inbound or outbound names. Reads the files.

    Args:
        part: The inbound or outbound.
        cert_dir: The folder where the core looks for relative paths.

    Returns:
        A fault that begins with the field, or None.
    """
    for entry in _entries(part):
        named = {field: value for key, value in entry.items() if (field := _FIELDS.get(key.lower())) is not None}
        paths = {
            field: path
            for field, value in named.items()
            if isinstance(value, str) and (path := certificate_path(value, cert_dir)) is not None
        }
        for field, path in paths.items():
            fault = _file_fault(path)
            if fault is not None:
                return f"{field} {short(named[field])} {fault}"
        if len(paths) == len(_FIELDS):
            fault = _pair_fault(paths["certificateFile"], paths["keyFile"])
            if fault is not None:
                return f"keyFile {short(named['keyFile'])} {fault}"
    return None


_FIELDS: Final = {"certificatefile": "certificateFile", "keyfile": "keyFile"}


def _entries(part: object) -> Iterator[dict[str, Any]]:
    stack = [part]
    while stack:
        current = stack.pop()
        if isinstance(current, dict):
            if any(key.lower() in _FIELDS for key in current):
                yield current
            stack.extend(value for key, value in current.items() if key not in ("clients", "users"))
        elif isinstance(current, list):
            stack.extend(current)


def _file_fault(path: Path) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return "does not exist"
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    try:
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(found.st_mode):
        return "is no regular file"
    return f"has more than {PEM_BYTES_MAX:,} bytes" if found.st_size > PEM_BYTES_MAX else None


def _pair_fault(certificate: Path, key: Path) -> str | None:
    try:
        # An encrypted key would ask for its password on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "-")
    except ssl.SSLError as error:
        if error.reason in _REASONS:
            return _REASONS[error.reason]
        return (
            "cannot be read with its certificate: give PEM files, a key without a password"
            if error.reason in _UNREADABLE
            else None
        )
    except (OSError, ValueError):
        return None
    return None

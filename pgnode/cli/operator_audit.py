"""A line in a node's audit trail about what an operator did by a command."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from pgnode.cli.output import say
from pgnode.os_support.audit import FIELD, append_entry, operator_fields
from pgnode.os_support.log_lines import Entry
from pgnode.settings import Settings


def note(settings: Settings, about: str, message: str, fields: Mapping[str, Any] | None = None) -> None:
    """Write the line; where that cannot be, the operator is told, and what was done stays done.

    Args:
        settings: Of the node.
        about: What it is about: "key", "certificate", "node", "settings".
        message: What was done.
        fields: What belongs to it; no secrets.
    """
    who = operator_fields(os.getuid(), os.environ)
    entry = Entry(time.time(), "info", "pgnode", os.getpid(), message, {FIELD: about, **who, **(fields or {})})
    try:
        folder = settings.state_dir.stat()
        append_entry(settings.audit_file, entry, (folder.st_uid, folder.st_gid))
    except OSError as error:
        say(f"this is not in {settings.audit_file}: {error.strerror or error}", error=True)

"""The table of the maintenance calls: HTTP routes and documents are made from it. Pure.

They are JSON over a port of their own (API_PORT).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pgnode.errors import (
    BusUnavailableError,
    ConflictError,
    DeadlineExceededError,
    DownloadFailedError,
    InternalError,
    InvalidRequestError,
    LengthRequiredError,
    NodeError,
    TooLargeError,
    UnauthenticatedError,
    UnsupportedError,
    UpdateFailedError,
)


@dataclass(frozen=True, slots=True)
class MaintenanceCall:
    """One call of the maintenance API."""

    http_method: Literal["GET", "POST"]
    #: Path without a trailing slash; it answers with one too.
    path: str
    #: Name of the handler on MaintenanceService; it takes the body's bytes and returns those of a JSON object with ``detail``.
    handler: str
    takes_body: bool
    #: One sentence for the documents.
    summary: str
    #: What a job may answer beside what every call may.
    errors: tuple[type[NodeError], ...] = ()

    @property
    def name(self) -> str:
        """What it is called where calls are counted."""
        return self.handler

    @property
    def group(self) -> Literal["read", "maintain"]:
        """The calls with which its time is counted."""
        return "read" if self.http_method == "GET" else "maintain"

    @property
    def all_errors(self) -> tuple[type[NodeError], ...]:
        """The errors that it may answer, by status."""
        found: set[type[NodeError]] = {UnauthenticatedError, InternalError, *self.errors}
        if self.http_method == "POST":
            found.update(
                (InvalidRequestError, TooLargeError, BusUnavailableError, DeadlineExceededError, ConflictError)
            )
        if self.takes_body:
            found.add(LengthRequiredError)
        return tuple(sorted(found, key=lambda error: (error.status, error.code)))


CALLS: tuple[MaintenanceCall, ...] = (
    MaintenanceCall(
        "GET", "/", "hello", False, "Answers at once, whatever else is running: panels ask before every call."
    ),
    MaintenanceCall(
        "POST",
        "/node/core_update",
        "core_update",
        True,
        'Downloads a release of the core and replaces the core with it: `{"core_version": "latest"}` or a version.',
        (UpdateFailedError, DownloadFailedError),
    ),
    MaintenanceCall(
        "POST",
        "/node/geofiles",
        "geofiles",
        True,
        'Downloads geoip.dat and geosite.dat: `{"region": "iran"}`, `"china"` or `"russia"`.',
        (UpdateFailedError, DownloadFailedError),
    ),
    MaintenanceCall(
        "POST",
        "/node/hard_reset",
        "hard_reset",
        False,
        "Stops the core and deletes config and users; key, certificate and unreported traffic are kept.",
    ),
    MaintenanceCall(
        "POST",
        "/node/update",
        "update",
        False,
        "Runs UPDATE_COMMAND and returns its output. Without one it upgrades an installation of pip's that the node may write "
        "to, and restarts in place; of others it says how they are updated.",
        (UnsupportedError, UpdateFailedError),
    ),
)

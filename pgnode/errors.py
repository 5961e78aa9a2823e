"""The one tree of errors that may reach a caller or an operator.

A :class:`NodeError` is answered to a caller. Its class says how over both protocols: the HTTP status, the name of the gRPC
status, and the code that goes with the text. An :class:`OperatorError` ends ``pgnode run``; its class says with which exit code.

Code that talks to a library translates the library's exceptions where they enter. A text begins with the cause, since some
callers show only its first 128 characters.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, TypeVar


class NodeError(Exception):
    """Something that is answered to a caller."""

    #: The HTTP status.
    status: ClassVar[int] = 500
    #: The code beside the text, for programs; unique among the classes.
    code: ClassVar[str] = "INTERNAL"
    #: The name of the gRPC status.
    grpc_status: ClassVar[str] = "INTERNAL"
    #: Seconds after which a caller may try again; sent as ``Retry-After`` where set.
    retry_after_seconds: ClassVar[int | None] = None

    @property
    def text(self) -> str:
        """The text of the answer."""
        return str(self)


class InvalidRequestError(NodeError):
    """The request itself is wrong: sending it again does not help."""

    status = 400
    code = "INVALID_ARGUMENT"
    grpc_status = "INVALID_ARGUMENT"


class UnauthenticatedError(NodeError):
    """The API key is missing or wrong."""

    status = 401
    code = "UNAUTHENTICATED"
    grpc_status = "UNAUTHENTICATED"


class NotFoundError(NodeError):
    """No such endpoint, or no such name."""

    status = 404
    code = "NOT_FOUND"
    grpc_status = "NOT_FOUND"


class MethodNotAllowedError(NodeError):
    """The path exists, the method does not."""

    status = 405
    code = "METHOD_NOT_ALLOWED"
    grpc_status = "UNIMPLEMENTED"


class ConflictError(NodeError):
    """Something else is running that excludes this; the text names it."""

    status = 409
    code = "CONFLICT"
    grpc_status = "ABORTED"


class LengthRequiredError(NodeError):
    """A call that takes a message came without Content-Length and without chunked coding."""

    status = 411
    code = "LENGTH_REQUIRED"
    grpc_status = "INVALID_ARGUMENT"


class TooLargeError(NodeError):
    """The message is larger than MAX_BODY_MIB allows."""

    status = 413
    code = "PAYLOAD_TOO_LARGE"
    grpc_status = "RESOURCE_EXHAUSTED"


class TooManyCallsError(NodeError):
    """A worker has as many calls or streams as it may have."""

    status = 429
    code = "RESOURCE_EXHAUSTED"
    grpc_status = "RESOURCE_EXHAUSTED"
    retry_after_seconds = 1


class InternalError(NodeError):
    """A fault of the node itself."""

    @classmethod
    def of(cls, error: BaseException) -> InternalError:
        """Return what a caller is told about an exception that nobody expected: its type. Its text belongs into the log."""
        return cls(f"internal error ({type(error).__name__}): see the node's log")


class UsersRefusedError(NodeError):
    """One or more users cannot be applied; all others of the same call were applied.

    The text is ``failed to update users: <email>: <cause>``, further users after ``; ``.
    """

    code = "USER_REJECTED"


class UpdateFailedError(NodeError):
    """A maintenance job failed; the node is as it was before."""

    code = "UPDATE_FAILED"


class UnsupportedError(NodeError):
    """This backend does not offer the call."""

    status = 501
    code = "UNIMPLEMENTED"
    grpc_status = "UNIMPLEMENTED"


class UnavailableError(NodeError):
    """The node cannot do this now; a later try may succeed."""

    status = 503
    code = "UNAVAILABLE"
    grpc_status = "UNAVAILABLE"
    retry_after_seconds = 1


class NotInitializedError(UnavailableError):
    """No backend was started.

    Panels look for the default text.
    """

    code = "BACKEND_NOT_INITIALIZED"

    def __init__(self, text: str = "backend not initialized") -> None:
        super().__init__(text)


class CoreNotStartedError(UnavailableError):
    """The core is down and the node is bringing it back.

    Panels look for the default text.
    """

    code = "CORE_NOT_STARTED"

    def __init__(self, text: str = "core is not started yet") -> None:
        super().__init__(text)


class CoreUnavailableError(UnavailableError):
    """The core runs, but its API did not answer in time."""

    code = "CORE_UNAVAILABLE"


class StartFailedError(UnavailableError):
    """The core could not be started; the text begins with the core's own reason."""

    code = "START_FAILED"


class DownloadFailedError(UnavailableError):
    """What a maintenance job needs could not be downloaded; nothing was changed."""

    code = "DOWNLOAD_FAILED"
    retry_after_seconds = 60


class BusUnavailableError(UnavailableError):
    """Redis, or the supervisor behind it, cannot be reached."""

    code = "BUS_UNAVAILABLE"
    retry_after_seconds = 2


class StoreUnavailableError(UnavailableError):
    """A change could not be stored. Core and memory have it, and it is stored as soon as that is possible."""

    code = "STORE_UNAVAILABLE"
    retry_after_seconds = 2


class DeadlineExceededError(NodeError):
    """The work did not end before the caller's deadline."""

    status = 504
    code = "DEADLINE_EXCEEDED"
    grpc_status = "DEADLINE_EXCEEDED"


_E = TypeVar("_E", bound=Exception)


def _subclasses(of: type[_E]) -> Iterator[type[_E]]:
    for found in of.__subclasses__():
        yield found
        yield from _subclasses(found)


#: Every class that is answered, by its code; an error that crosses the bus is made again from it.
BY_CODE: dict[str, type[NodeError]] = {error.code: error for error in _subclasses(NodeError)}


def from_code(code: str, text: str) -> NodeError:
    """Return an error of the class that ``code`` names, with ``text``; InternalError for an unknown code."""
    return BY_CODE.get(code, InternalError)(text)


class OperatorError(Exception):
    """The node cannot run as it is set up. Its text says what the operator has to change."""

    #: The exit code of ``pgnode run``.
    exit_code: ClassVar[int] = 1


class SettingsError(OperatorError):
    """A setting has a value that is not allowed."""

    exit_code = 2


class ArgumentError(OperatorError):
    """A command was given an argument that is not allowed."""

    exit_code = 2


class DependencyError(OperatorError):
    """A distribution that the node is built on is missing, or has a version that is not known to work."""

    exit_code = 2


class StoreUnusableError(OperatorError):
    """The store in the state folder cannot be opened, read or written."""

    exit_code = 2


class NotRunningError(OperatorError):
    """A command needs a node that runs, and there is none."""

    exit_code = 3


class StateDirBusyError(OperatorError):
    """Another node holds the state folder."""

    exit_code = 3


class NotAnsweringError(OperatorError):
    """A command needs an answer of the node, which runs and gives none."""

    exit_code = 4


class PortInUseError(OperatorError):
    """A port that the node wants to listen on is in use."""

    exit_code = 4


class PrefixInUseError(OperatorError):
    """A REDIS_PREFIX is in use by another node."""

    exit_code = 4


class ChildFailedError(OperatorError):
    """A process that the node cannot do without keeps failing."""

    exit_code = 5


class TaskFailedError(OperatorError):
    """A part of the supervisor fails again and again, also after restarts in place."""

    exit_code = 6

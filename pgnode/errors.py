"""The one tree of errors that may reach a caller or an operator.

Every error carries what each face needs: an HTTP status, a gRPC status name and an ERROR_CODE for the body
``{"error": …, "code": …}``. Code that talks to a foreign library translates its exceptions where they enter.
The text begins with the cause: callers cut it at 128 characters.
"""

from __future__ import annotations

from typing import ClassVar


class NodeError(Exception):
    """Something that is answered to a caller. ``str(error)`` is the text of the answer."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "INTERNAL"
    grpc_status: ClassVar[str] = "INTERNAL"
    #: Seconds after which a caller may try again; sent as ``Retry-After`` where set.
    retry_after_seconds: ClassVar[int | None] = None

    @property
    def text(self) -> str:
        return str(self)


class InvalidRequestError(NodeError):
    """The request itself is wrong; sending it again changes nothing."""

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
    """Something else is under way that excludes this; the text names it."""

    status = 409
    code = "CONFLICT"
    grpc_status = "ABORTED"


class LengthRequiredError(NodeError):
    """A call that takes a message came without a length and without chunked coding."""

    status = 411
    code = "LENGTH_REQUIRED"
    grpc_status = "INVALID_ARGUMENT"


class TooLargeError(NodeError):
    """The message is larger than MAX_BODY_MIB allows."""

    status = 413
    code = "PAYLOAD_TOO_LARGE"
    grpc_status = "RESOURCE_EXHAUSTED"


class TooManyCallsError(NodeError):
    """A worker has as many calls or streams under way as it may have."""

    status = 429
    code = "RESOURCE_EXHAUSTED"
    grpc_status = "RESOURCE_EXHAUSTED"
    retry_after_seconds = 1


class InternalError(NodeError):
    """A fault of the node itself."""

    @classmethod
    def of(cls, error: BaseException) -> InternalError:
        """What a caller is told about an exception that nobody expected; the log has the rest."""
        return cls(f"internal error ({type(error).__name__}): the node's log tells more")


class UsersRefusedError(NodeError):
    """One or more users cannot be applied; all others of the same call were.

    The text is ``failed to update users: <email>: <cause>``, further users after ``; ``.
    """

    code = "USER_REJECTED"


class UpdateFailedError(NodeError):
    """A maintenance job did not lead to what was asked for; the node is as it was before."""

    code = "UPDATE_FAILED"


class UnsupportedError(NodeError):
    """This backend does not offer the call."""

    status = 501
    code = "UNIMPLEMENTED"
    grpc_status = "UNIMPLEMENTED"


class UnavailableError(NodeError):
    """The node cannot do it now; a later try may succeed."""

    status = 503
    code = "UNAVAILABLE"
    grpc_status = "UNAVAILABLE"
    retry_after_seconds = 1


class NotInitializedError(UnavailableError):
    """No backend was started."""

    code = "BACKEND_NOT_INITIALIZED"

    def __init__(self, text: str = "backend not initialized") -> None:
        super().__init__(text)


class CoreNotStartedError(UnavailableError):
    """The core is down and the node is bringing it back."""

    code = "CORE_NOT_STARTED"

    def __init__(self, text: str = "core is not started yet") -> None:
        super().__init__(text)


class CoreUnavailableError(UnavailableError):
    """The core runs, but its API did not answer in time."""

    code = "CORE_UNAVAILABLE"


class StartFailedError(UnavailableError):
    """``/start`` did not lead to a running core; the text begins with the core's own reason."""

    code = "START_FAILED"


class DownloadFailedError(UnavailableError):
    """What a maintenance job needs could not be downloaded; nothing was changed."""

    code = "DOWNLOAD_FAILED"
    retry_after_seconds = 60


class BusUnavailableError(UnavailableError):
    """Redis, or the supervisor behind it, cannot be reached."""

    code = "BUS_UNAVAILABLE"
    retry_after_seconds = 2


class DeadlineExceededError(NodeError):
    """The work did not end within the caller's time."""

    status = 504
    code = "DEADLINE_EXCEEDED"
    grpc_status = "DEADLINE_EXCEEDED"


#: Every error class by its code, to rebuild an error that crossed the bus.
BY_CODE: dict[str, type[NodeError]] = {
    cls.code: cls
    for cls in (
        InvalidRequestError,
        UnauthenticatedError,
        NotFoundError,
        MethodNotAllowedError,
        ConflictError,
        LengthRequiredError,
        TooLargeError,
        TooManyCallsError,
        InternalError,
        UsersRefusedError,
        UpdateFailedError,
        UnsupportedError,
        UnavailableError,
        NotInitializedError,
        CoreNotStartedError,
        CoreUnavailableError,
        StartFailedError,
        DownloadFailedError,
        BusUnavailableError,
        DeadlineExceededError,
    )
}


def from_code(code: str, text: str) -> NodeError:
    """The error that ``code`` names, with ``text``; an unknown code is an internal error."""
    return BY_CODE.get(code, InternalError)(text)


class OperatorError(Exception):
    """The node cannot run as it is set up. ``str(error)`` tells the operator what to change.

    ``exit_code`` is what ``pgnode run`` ends with; docs/configuration.md lists them.
    """

    exit_code: ClassVar[int] = 1


class SettingsError(OperatorError):
    """A setting has a value that is not allowed."""

    exit_code = 2


class DependencyError(OperatorError):
    """A distribution that the node is built on is missing, or has a version that is not known to work."""

    exit_code = 2


class StateDirBusyError(OperatorError):
    """Another supervisor holds the state folder."""

    exit_code = 3


class PortInUseError(OperatorError):
    """A port that the node wants to listen on is taken."""

    exit_code = 4


class ChildFailedError(OperatorError):
    """A process that the node cannot do without keeps failing."""

    exit_code = 5

"""What is said of API workers."""

from __future__ import annotations

from typing import Final

from pgnode.cli.texts import count
from pgnode.supervisor.control.report import AloneReport

#: Kinds of workers as they are shown.
KINDS: Final = {"rest": "REST", "grpc": "gRPC"}


def alone_text(workers: AloneReport, version: str) -> str:
    """Say what there is of workers without a supervisor beside them.

    Args:
        workers: Those of one kind and version on one host.
        version: The supervisor's version.

    Returns:
        Half a sentence.
    """
    text = f"{count(workers.count, f'{KINDS.get(workers.kind, workers.kind)} worker')} on {workers.host}"
    if not workers.agrees:
        return f"{text} (version {workers.version}, which speaks another protocol of the bus and serves nobody)"
    return f"{text} (version {workers.version})" if workers.version != version else text

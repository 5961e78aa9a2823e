"""The settings of API workers that run without a supervisor beside them (``pgnode worker``), on its host or on another one.

``python -m pgnode.settings.alone KIND DESCRIPTOR [FILE]`` reads them once more, in a process of its own, since the library that
checks settings is large and no worker has it: Gunicorn's master runs that at SIGHUP.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, cast

from pgnode.errors import SettingsError
from pgnode.settings.handover import load_handed_over, take_environment, write_settings
from pgnode.settings.loading import load_from
from pgnode.settings.model import Settings

WorkerKind = Literal["rest", "grpc"]

#: Where workers listen is decided at their start.
LASTING: Final = ("node_host", "service_port", "api_port", "grpc_port")


def load_alone(kind: WorkerKind, env_file: Path | None = None) -> Settings:
    """Read the settings of workers of a kind.

    Args:
        kind: What they serve. Of SERVICE_PROTOCOL it only matters whether gRPC is on SERVICE_PORT.
        env_file: A file of settings, which wins over the environment; None for none.

    Returns:
        The settings.

    Raises:
        SettingsError: A value is not allowed, or one is missing without which no worker can meet the supervisor.
    """
    settings = load_from(env_file)
    protocol: Literal["rest", "grpc", "both"] = "rest"
    if kind == "grpc":
        protocol = "grpc" if settings.service_protocol == "grpc" else "both"
        if settings.grpc_workers == 0:
            raise SettingsError("GRPC_WORKERS=0 is not allowed: nothing would be served; allowed is 1 or more")
    if settings.redis_url is None:
        raise SettingsError(
            "REDIS_URL is not set: workers meet the supervisor over the Redis that it names, not over the Valkey of its own; "
            "set the same REDIS_URL and REDIS_PREFIX for both"
        )
    return settings.model_copy(update={"service_protocol": protocol})


def main(arguments: Sequence[str]) -> int:
    """Read the settings once more, and write them where workers find them.

    Args:
        arguments: The kind of workers, the descriptor to write to, and the file of settings where there is one.

    Returns:
        0, or the code of what is wrong, which is printed.
    """
    kind, number, *files = arguments
    try:
        before = load_handed_over()
        take_environment(os.environ)
        settings = load_alone(cast(WorkerKind, kind), Path(files[0]) if files else None)
        for name in LASTING:
            if getattr(settings, name) != getattr(before, name):
                raise SettingsError(f"{name.upper()} is another one now, which needs a stop and a start")
    except SettingsError as error:
        print(error)  # noqa: T201 - whoever runs this reads it
        return error.exit_code
    write_settings(settings, int(number))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

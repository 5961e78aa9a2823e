"""``python -m pgnode`` is ``pgnode``, and so is the script of an installation."""

from __future__ import annotations

import os
import sys

from pgnode.os_support import lean_start


def main() -> None:
    """Carry out a command; as the supervisor that ``pgnode run`` becomes, run the node without what commands import."""
    if lean_start.CHECKED_VARIABLE not in os.environ:
        from pgnode.cli import main as command  # noqa: PLC0415

        command()
    lean_start.begin()
    from pgnode.supervisor.beginning import main as supervise  # noqa: PLC0415

    sys.exit(supervise())


if __name__ == "__main__":
    main()

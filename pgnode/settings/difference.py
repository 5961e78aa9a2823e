"""What is different in the settings of a running node and in those that it would have now. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

#: What a node keeps for as long as it runs: where its state is, and where its processes meet.
FIXED: Final = ("state_dir", "redis_url", "redis_prefix")

#: What is taken when the next core starts.
OF_THE_CORE: Final = ("xray_executable_path", "xray_assets_path", "inbound_stats")


@dataclass(frozen=True, slots=True)
class Difference:
    """Names of settings, as an operator writes them."""

    #: What is taken while the node runs.
    taken: tuple[str, ...] = ()
    #: What the next core takes.
    next_core: tuple[str, ...] = ()
    #: What only a stop and a start take.
    fixed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.taken or self.next_core or self.fixed)

    def encode(self) -> str:
        """Return it as one line for :meth:`decode`."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, line: str) -> Difference:
        """Read what another process found; none where the line is none of :meth:`encode`."""
        try:
            names = json.loads(line)
            return cls(**{kind: tuple(map(str, names[kind])) for kind in ("taken", "next_core", "fixed")})
        except (ValueError, TypeError, KeyError):
            return cls()

    @property
    def refusal(self) -> str:
        """Why a running node cannot take it; "" where it can."""
        if not self.fixed:
            return ""
        return (
            f"{' and '.join(self.fixed)} cannot change while the node runs, so nothing was changed: set it back, or stop the "
            "node and start it, which ends all connections"
        )

    @property
    def summary(self) -> str:
        """What is taken, and when."""
        parts = []
        if self.taken:
            parts.append(f"taken: {', '.join(self.taken)}")
        if self.next_core:
            parts.append(f"taken by the next core: {', '.join(self.next_core)} (at once: pgnode restart --core)")
        return "; ".join(parts)


#: Nothing is different.
NO_DIFFERENCE: Final = Difference()


def difference(running: Mapping[str, object], asked: Mapping[str, object]) -> Difference:
    """Compare settings, each by the name of its field.

    Args:
        running: Those of the node that runs.
        asked: Those that it would have if it were started now.

    Returns:
        What is different.
    """
    names = [name for name, value in asked.items() if name not in running or running[name] != value]
    return Difference(
        taken=tuple(name.upper() for name in names if name not in (*FIXED, *OF_THE_CORE)),
        next_core=tuple(name.upper() for name in names if name in OF_THE_CORE),
        fixed=tuple(name.upper() for name in names if name in FIXED),
    )

"""The job ``hard_reset``: the node is as if no panel had ever started it. Key, certificate and traffic stay."""

from __future__ import annotations

from pgnode.supervisor.maintenance.node_port import MaintainedNode


class HardReset:
    """Belongs to the supervisor's loop.

    Args:
        node: Is reset.
    """

    def __init__(self, node: MaintainedNode) -> None:
        self._node = node

    def __repr__(self) -> str:
        return "HardReset()"

    async def run(self, _request: dict[str, str]) -> str:
        """Do the job; return what was done."""
        await self._node.reset()
        return "config and users are forgotten, no core runs; the next start makes a new one"

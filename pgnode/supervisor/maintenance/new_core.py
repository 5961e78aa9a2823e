"""The job ``new_core``: a really new core with the config and the users that there are; connections of users end."""

from __future__ import annotations

from pgnode.supervisor.maintenance.node_port import MaintainedNode


class NewCore:
    """Belongs to the supervisor's loop.

    Args:
        node: Gets a new core.
    """

    def __init__(self, node: MaintainedNode) -> None:
        self._node = node

    def __repr__(self) -> str:
        return "NewCore()"

    async def run(self, _request: dict[str, str]) -> str:
        """Do the job; return what was done. Raises NodeError when the core does not come up."""

        async def nothing() -> None:
            """Change nothing: the new core is what is wanted."""

        runs = await self._node.exchange_core(nothing, nothing, "an operator asked for a new one")
        return "a new core runs" if runs else "no core has to run; the next start makes a new one"

"""What nodes print."""

from __future__ import annotations

from pgnode.testing.node import NodeProcess
from tests.support.polling import eventually


async def said(node: NodeProcess, *texts: str) -> str:
    """Wait for a line that holds all of these, and return it: lines come a moment after the answer that they are about.

    AssertionError with the node's whole output, where none comes.
    """

    def line() -> str:
        return next((line for line in node.output if all(text in line for text in texts)), "")

    try:
        return str(await eventually(line, f"a line with {texts}"))
    except AssertionError as error:
        raise AssertionError(f"{error}\n{node.output_text}") from None

"""Generates the Python code beside each ``.proto`` of this folder: ``python -m pgnode.xray.proto.generate``.

Run from the root of the source tree, with the ``dev`` dependencies installed. What comes out is checked in, so that
an installed node needs no compiler.
"""

from __future__ import annotations

import sys
from pathlib import Path

from grpc_tools import protoc


def main(out: Path | None = None) -> int:
    """Compile every ``.proto`` of this folder.

    Args:
        out: Where the tree of what is made begins; the source tree when it is left out.

    Returns:
        The compiler's exit status.
    """
    folder = Path(__file__).resolve().parent
    root = folder.parents[2]
    out = out or root
    sources = [str(path.relative_to(root)) for path in sorted(folder.glob("*.proto"))]
    arguments = ["protoc", f"-I{root}", f"--python_out={out}", f"--pyi_out={out}", *sources]
    return int(protoc.main(arguments))


if __name__ == "__main__":
    sys.exit(main())

"""A gRPC worker without gRPC: ``python -m tests.support.fake_grpc_worker LINE``. FAKE_WORKER says how it behaves.

``well`` beats until its line is closed; ``silent`` beats once; ``leaving`` asks for a replacement at once; ``broken`` ends at
once; ``ends`` beats, and ends.
"""

from __future__ import annotations

import os
import select
import socket
import sys

from pgnode.bus.heartbeat import BEAT, LEAVING


def main() -> int:
    line = socket.socket(fileno=int(sys.argv[1]))
    behaviour = os.environ.get("FAKE_WORKER", "well")
    if behaviour == "broken":
        print("no luck", flush=True)
        return 3
    line.send(BEAT)
    if behaviour == "ends":
        return 4
    if behaviour == "leaving":
        line.send(LEAVING)
    while not select.select([line], [], [], 0.02)[0]:
        if behaviour != "silent":
            line.send(BEAT)
    return 0


if __name__ == "__main__":
    sys.exit(main())

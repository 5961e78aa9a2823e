"""A gRPC worker without gRPC: ``python -m tests.support.fake_grpc_worker LINE``. FAKE_WORKER says how it behaves.

``well`` beats until its line is closed, asks for a replacement when SIGTERM comes, and prints whether others serve at the end;
``silent`` beats once; ``leaving`` asks for a replacement at once; ``broken`` ends at once; ``ends`` beats, and ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys

from pgnode.bus.heartbeat import BEAT, LEAVING, OTHERS_SERVE


def send(line: socket.socket, what: bytes) -> None:
    """Send, whether or not somebody is there."""
    with contextlib.suppress(OSError):
        line.send(what)


def main() -> int:
    line = socket.socket(fileno=int(sys.argv[1]))
    behaviour = os.environ.get("FAKE_WORKER", "well")
    if behaviour == "broken":
        print("no luck", flush=True)
        return 3
    if behaviour != "silent":
        signal.signal(signal.SIGTERM, lambda *_: send(line, LEAVING))
    line.send(BEAT)
    if behaviour == "ends":
        return 4
    if behaviour == "leaving":
        line.send(LEAVING)
    while not select.select([line], [], [], 0.02)[0]:
        if behaviour != "silent":
            send(line, BEAT)
    print("others serve" if OTHERS_SERVE in line.recv(64) else "nobody else serves", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

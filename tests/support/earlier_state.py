"""The state that pgnode 0.5.0 left in ``tests/data``, and what is in it."""

from __future__ import annotations

import tarfile
import uuid
from pathlib import Path

from pgnode.wire import service_pb2 as pb

ARCHIVE = Path(__file__).parent.parent / "data" / "state-0.5.0.tar.xz"
TAG = "VLESS"
USERS = 5000
#: Users who moved 1,000 bytes up and 2,000 down, twice that, and so on; the first four were given theirs.
MOVERS, GIVEN = 12, 4
#: The user whose traffic is on loan.
ON_LOAN = "user5@import"


def unpack(folder: Path) -> None:
    """Put it into a state folder."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")


def user(number: int) -> pb.User:
    email = f"user{number}@import"
    made = pb.User(email=email, inbounds=[TAG])
    made.proxies.vless.id = str(uuid.uuid5(uuid.NAMESPACE_URL, email))
    return made


def moved() -> dict[str, int]:
    """Counter -> bytes."""
    return {
        f"user>>>user{number}@import>>>traffic>>>{direction}": size * (number + 1)
        for number in range(MOVERS)
        for direction, size in (("uplink", 1000), ("downlink", 2000))
    }


def given() -> dict[str, int]:
    """Counter -> bytes."""
    return {name: value for name, value in moved().items() if int(name[11:].partition("@")[0]) < GIVEN}

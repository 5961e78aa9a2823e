"""Corrects counters of the store that are older than its open loans. Pure.

When traffic is handed out, only the loan is stored at once. The counters' rows follow some seconds later, or with the end of the
loan. What a loan holds had been counted, so these rows can be worked out when the store is read in between.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable

from google.protobuf.message import DecodeError

from pgnode.store.rows import LedgerRow, LedgerRun, LoanPart
from pgnode.wire import service_pb2 as pb
from pgnode.wire import stat_names


def count_lent(counters: dict[str, LedgerRow], run: LedgerRun | None, parts: Iterable[LoanPart]) -> None:
    """Raise each counter to what it was when its last loan was made.

    A loan takes all that is owed. So the total was then the reported bytes plus all that is on loan. What the row lacks was
    counted in the core run that was read last: all rows are stored when a run ends.

    Args:
        counters: Name in the core -> row; rows are replaced, or added.
        run: The core run that was read last.
        parts: All open loans.
    """
    lent = Counter[str]()
    for part in parts:
        # Whoever takes the loans over says which of them are damaged.
        with contextlib.suppress(DecodeError, TypeError):
            lent.update(dict(counters_of(part)))
    number = run.number if run is not None else 0
    for name, value in lent.items():
        row = counters.get(name) or LedgerRow(0, 0, 0, number)
        missing = row.reported + value - row.total
        if missing > 0:
            seen = row.seen if row.run == number else 0
            counters[name] = LedgerRow(row.total + missing, row.reported, seen + missing, number)


def counters_of(part: LoanPart) -> list[tuple[str, int]]:
    """Return (counter, bytes) of each that is on loan. Raises DecodeError or TypeError: the part is damaged."""
    return [
        (stat_names.counter_name(stat_names.Counter(part.kind, stat.name, stat.link, stat.type)), stat.value)
        for stat in pb.StatResponse.FromString(part.body).stats
    ]

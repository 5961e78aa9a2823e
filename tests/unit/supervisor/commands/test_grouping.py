"""Groups of commands: runs of small changes, and barriers between them."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from pgnode.bus.commands import GATHERED_KINDS, Command, Kind
from pgnode.supervisor.commands.grouping import batches, is_gathered


def _command(number: int, kind: Kind = Kind.SYNC_USER) -> Command:
    return Command(f"{number}-0", str(number), kind, "w", 10**15, b"")


@given(st.lists(st.sampled_from(Kind)))
def test_batches_keep_the_order_and_are_barriers(kinds: list[Kind]) -> None:
    group = [_command(number, kind) for number, kind in enumerate(kinds)]
    found = batches(group)
    assert [command for batch in found for command in batch] == group
    for batch in found:
        assert len(batch) == 1 or all(command.kind in GATHERED_KINDS for command in batch)
    for before, after in itertools.pairwise(found):
        assert not (before[0].kind in GATHERED_KINDS and after[0].kind in GATHERED_KINDS)


def test_a_change_of_many_users_is_done_alone() -> None:
    large = _command(1)
    large.blob = True
    assert not is_gathered(large)
    assert [len(batch) for batch in batches([_command(0), large, _command(2), _command(3)])] == [1, 1, 2]

"""Who is in a swap, and how each is written for the core."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgnode.supervisor.users.decoding import account_in
from pgnode.supervisor.users.swap_message import SwapMessage, swap_entry
from pgnode.supervisor.users.swap_policy import users_in_swap
from pgnode.xray.config.accounts import canonical_id
from pgnode.xray.proto import trojan_pb2, user_pb2, vless_pb2
from tests.unit.supervisor.users.models import TROJAN, VLESS, vless_user

NAMES = [f"user{number}" for number in range(8)]
#: Name -> number of its credentials; below zero for nobody in this inbound.
STATES = st.dictionaries(st.sampled_from(NAMES), st.integers(-1, 3))


def messages(state: dict[str, int]) -> dict[str, bytes]:
    return {
        name: vless_user(name, number, ("vless", "trojan") if number >= 0 else ("other",)).SerializeToString(
            deterministic=True
        )
        for name, number in state.items()
    }


def test_an_id_is_written_without_dashes_and_a_password_as_it_is() -> None:
    raw = vless_user("alice", 7, ("vless", "trojan")).SerializeToString(deterministic=True)
    vless, trojan = account_in(raw, VLESS), account_in(raw, TROJAN)
    assert vless is not None
    assert trojan is not None
    user = user_pb2.User.FromString(swap_entry(raw, VLESS) or b"")
    short = vless_pb2.Account.FromString(user.account.value).id
    assert len(short) == 32
    assert (user.email, canonical_id(short)) == ("alice", vless[1].secret)
    user = user_pb2.User.FromString(swap_entry(raw, TROJAN) or b"")
    assert trojan_pb2.Account.FromString(user.account.value).password == trojan[1].secret
    assert swap_entry(None, VLESS) is None


@given(STATES, STATES, st.permutations(NAMES), st.integers(1, 4))
def test_everybody_is_in_it_as_desired_at_its_end(
    before: dict[str, int], after: dict[str, int], order: list[str], count: int
) -> None:
    first, then = messages(before), messages(after)
    # As in the table: who was not changed has the same object.
    then = {key: first[key] if first.get(key) == raw else raw for key, raw in then.items()}
    swap = SwapMessage(VLESS, order)
    while not swap.full:
        swap.read(first.get, count)
    entries, absent = swap.finish(then.get)
    read = {key for key in order if key in first}
    assert entries == {
        key: entry for key in order if key in read and (entry := swap_entry(then.get(key), VLESS)) is not None
    }
    assert absent == {key for key in read if then.get(key) == first[key] and swap_entry(first[key], VLESS) is None}


def test_no_more_is_read_than_a_message_holds() -> None:
    raw = messages(dict.fromkeys(NAMES, 1))
    size = len(swap_entry(raw[NAMES[0]], VLESS) or b"")
    swap = SwapMessage(VLESS, NAMES, limit_bytes=3 * size)
    while not swap.full:
        swap.read(raw.get, 1)
    assert list(swap.finish(raw.get)[0]) == NAMES[:3]


def test_a_swap_holds_no_more_users_than_may_be_away() -> None:
    limit = users_in_swap(TROJAN)
    names = [str(number) for number in range(limit + 10)]
    raw = vless_user("somebody", 1, ("trojan",)).SerializeToString(deterministic=True)
    swap = SwapMessage(TROJAN, names)
    while not swap.full:
        swap.read(lambda _: raw, limit + 10)
    assert list(swap.finish(lambda _: raw)[0]) == names[:limit]

"""The index of credentials against a plain dict: nobody who has one is missing, and what is contested is found."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgnode.supervisor.users.credentials import CredentialIndex, number_of, numbers_of
from pgnode.xray.config.accounts import Account, credential_of
from tests.unit.supervisor.users.models import INBOUNDS, vless_user

#: Numbers of one bucket, of neighbouring ones, and of the largest number there is.
NUMBERS = st.sampled_from([0, 1, 1 << 13, (1 << 13) + 1, 5 << 13, (1 << 53) - 1])
CLAIMS = st.lists(st.tuples(st.sampled_from("abcde"), st.lists(NUMBERS, max_size=3, unique=True)), max_size=12)


@given(st.dictionaries(st.sampled_from("vwxyz"), st.lists(NUMBERS, max_size=3, unique=True)), CLAIMS)
def test_whoever_has_a_credential_is_found(first: dict[str, list[int]], claims: list[tuple[str, list[int]]]) -> None:
    index = CredentialIndex(INBOUNDS)
    holders: dict[int, list[str]] = {}
    for key, numbers in first.items():
        index.add(key, numbers)
        for number in numbers:
            holders.setdefault(number, []).append(key)
    while not index.finish(1000):
        pass
    assert index.contested.keys() == {number for number, keys in holders.items() if len(keys) > 1}
    index.contested.clear()
    contested = set()
    for key, numbers in claims:
        index.claim(key, numbers)
        for number in numbers:
            keys = holders.setdefault(number, [])
            if key not in keys:
                keys.append(key)
            if len(keys) > 1:
                contested.add(number)
    assert {number: sorted(index.holders(number)) for number in holders} == {n: sorted(k) for n, k in holders.items()}
    assert index.contested.keys() == contested
    for number in contested:
        asked = [key for key, numbers in claims if number in numbers]
        assert list(index.contested[number])[-1] == asked[-1]


def test_it_is_worn_when_most_of_it_was_added_since_it_was_made() -> None:
    index = CredentialIndex(INBOUNDS, worn_entries=4)
    for number in range(10):
        index.add(f"user {number}", [100 + number])
    index.finish()
    assert len(index) == 20
    for number in range(19):
        assert not index.is_worn()
        index.claim("user 1", [number])
    index.claim("user 1", [19])
    assert len(index) == 40
    assert index.is_worn()
    index.begin_early()
    assert not index.is_worn(), "another one would not have those who are on their way"
    index.end_early()
    assert index.is_worn()
    few = CredentialIndex(INBOUNDS, worn_entries=4)
    few.claim("a", [1])
    few.claim("a", [1])
    few.claim("a", [2])
    assert not few.is_worn()
    few.claim("a", [3])
    assert few.is_worn()


def test_what_a_user_has_no_longer_can_be_forgotten() -> None:
    index = CredentialIndex(INBOUNDS)
    index.claim("a", [7])
    index.claim("b", [7])
    index.forget(7, "a")
    index.forget(7, "nobody")
    index.forget(8, "a")
    assert (index.holders(7), index.holders(8)) == (["b"], [])
    assert len(index) == 3
    assert repr(index) == "CredentialIndex(3 entries, 2 users, 0 waited for)"


def test_what_somebody_waits_for_is_noticed_when_it_is_given_up() -> None:
    index = CredentialIndex(INBOUNDS)
    raw = vless_user("a", 1).SerializeToString()
    number = number_of(credential_of(Account("vless", vless_user("a", 1).proxies.vless.id)))
    assert index.numbers(raw) == [number]
    index.give_up(raw)
    assert not index.freed
    index.wait(number, "b")
    index.give_up(vless_user("a", 2).SerializeToString())
    assert not index.freed
    index.give_up(raw)
    assert index.freed == {number}


def test_one_secret_of_several_inbounds_has_one_number_and_shadowsocks_none() -> None:
    vless, trojan = Account("vless", "0" * 36), Account("trojan", "x")
    assert len(numbers_of({"1": vless, "2": vless._replace(detail="flow"), "3": trojan})) == 2
    assert numbers_of({"1": Account("shadowsocks", "x", "aes-128-gcm")}) == []
    assert not CredentialIndex().used


def test_an_entry_takes_few_bytes() -> None:
    index = CredentialIndex(INBOUNDS)
    for user in range(20_000):
        index.add(f"user{user}", [number_of(f"vless {user}"), number_of(f"trojan {user}")])
    index.finish()
    assert not index.contested
    assert len(index) == 60_000
    assert sum(bucket.itemsize * len(bucket) for bucket in index._buckets if bucket is not None) == 8 * 60_000

"""Keys of several nodes in one Redis are apart, and so are those of several workers."""

from __future__ import annotations

from pgnode.bus.keys import Keys


def names(keys: Keys) -> list[str]:
    found = [value for name, value in vars(keys).items() if name not in ("prefix", "base")]
    return [*found, keys.blob("x"), keys.replies("x"), keys.worker("x"), keys.snapshot("x")]


def test_every_key_has_a_name_of_its_own() -> None:
    one, two = names(Keys("one")), names(Keys("two"))
    assert len(set(one + two)) == len(one) + len(two)
    assert all(name.startswith("one:") for name in one)
    assert repr(Keys("one")) == "Keys('one')"


def test_in_a_cluster_all_keys_of_a_node_are_in_one_hash_tag() -> None:
    keys = Keys("{one}")
    assert all(name.startswith("{one}:") for name in names(keys))
    assert keys.prefix == "one", "as an operator knows it"

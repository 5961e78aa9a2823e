"""Keys of several nodes in one Redis are apart, and so are those of several workers."""

from __future__ import annotations

from pgnode.bus.keys import Keys


def names(keys: Keys) -> list[str]:
    found = [value for name, value in vars(keys).items() if name != "prefix"]
    return [*found, keys.blob("x"), keys.replies("x"), keys.worker("x"), keys.snapshot("x")]


def test_every_key_has_a_name_of_its_own() -> None:
    one, two = names(Keys("one")), names(Keys("two"))
    assert len(set(one + two)) == len(one) + len(two)
    assert all(name.startswith("one:") for name in one)
    assert repr(Keys("one")) == "Keys('one')"

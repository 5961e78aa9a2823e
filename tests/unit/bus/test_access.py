"""What a node needs of an ACL: workers need less, and what is refused is named as a rule."""

from __future__ import annotations

from pgnode.bus.access import NEEDS, Role, attempts, missing_rules, needs_of, rules


def test_workers_need_less() -> None:
    all_of_it, less = needs_of(Role.SUPERVISOR), needs_of(Role.WORKER)
    assert all_of_it == NEEDS
    assert set(less) < set(all_of_it)
    assert not {"publish", "xack", "xdel", "hgetall", "del"} & {need.rule for need in less}
    assert len({need.rule for need in NEEDS}) == len(NEEDS)


def test_the_rules_are_for_the_nodes_own_keys_alone() -> None:
    found = rules(Role.WORKER, "{p}")
    assert found.startswith("resetkeys ~{p}:* resetchannels &{p}:* -@all +ping ")
    assert "+xgroup|create" in rules(Role.SUPERVISOR, "p")
    assert "+@" not in found


def test_tries_touch_no_key_of_the_nodes() -> None:
    for need, words in attempts(Role.SUPERVISOR, "p"):
        assert words[0].lower() == need.rule.partition("|")[0]
        assert not any("{" in word for word in words)
        assert all(word.startswith("p:try:") for word in words if ":" in word)


def test_what_is_refused_is_named_as_a_rule() -> None:
    xadd, publish = (next(need for need in NEEDS if need.rule == name) for name in ("xadd", "publish"))
    refused = [
        (xadd, "this user has no permissions to run the 'xadd' command"),
        (xadd, "this user has no permissions to run the 'xadd' command"),
        (xadd, "No permissions to access a key"),
        (publish, "this user has no permissions to access one of the channels used as arguments"),
    ]
    assert missing_rules(refused, "p") == ["+xadd", "~p:*", "&p:*"]

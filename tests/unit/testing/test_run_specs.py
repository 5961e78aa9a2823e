"""Configs for tests of what decides about them."""

from __future__ import annotations

from pgnode.testing.run_specs import make_run_spec


def test_a_config_is_its_inbounds() -> None:
    spec = make_run_spec("a", "b", keep_alive_seconds=3, dns={"servers": ["localhost"]})
    assert (list(spec.inbounds), spec.keep_alive_seconds) == (["a", "b"], 3)
    assert spec.base.base_hash != make_run_spec("a", "b").base.base_hash
    assert make_run_spec() == make_run_spec("a")

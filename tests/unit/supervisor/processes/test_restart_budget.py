"""How often a supervisor may restart itself because of errors."""

from __future__ import annotations

from pgnode.supervisor.processes.restart_budget import RESTARTS_MAX, WITHIN_SECONDS, spend


def test_some_restarts_are_allowed_and_then_none() -> None:
    moments: tuple[float, ...] = ()
    for number in range(RESTARTS_MAX):
        spent = spend(moments, float(number))
        assert spent is not None
        moments = spent
    assert moments == (0.0, 1.0, 2.0)
    assert spend(moments, 3.0) is None
    assert spend(moments, WITHIN_SECONDS - 0.1) is None


def test_old_ones_are_forgotten() -> None:
    assert spend((0.0, 1.0, 2.0), WITHIN_SECONDS) == (1.0, 2.0, WITHIN_SECONDS)
    assert spend((0.0, 1.0, 2.0), 10 * WITHIN_SECONDS) == (10 * WITHIN_SECONDS,)


def test_moments_of_another_boot_count_for_nothing() -> None:
    assert spend((500.0, 501.0, 502.0), 3.0) == (3.0,)

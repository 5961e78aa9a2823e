"""Rows and the table."""

from __future__ import annotations

import io
import json
import math

import pytest
from rich.console import Console

from bench.__main__ import as_json
from bench.report import (
    Figure,
    Row,
    at_least,
    at_most,
    below,
    beside,
    none_of,
    number,
    read_results,
    summary,
    table,
)

FAST = Row("GET /fast", [Figure(8000, "/s")], [Figure(10_000, "/s")], "bare", at_least(0.8, 0.8, "of the bare app"))
SLOW = Row(
    "GET /slow", [Figure(3, "s")], [Figure(1, "s")], "bare", at_most(3.0, 2, "times the bare core"), "1 refused [x]"
)
FREE = Row("GET /free", [Figure(5, "/s"), Figure(12.345, "ms", "p99")])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (8712.4, "8,712"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0.1234, "0.123"), (3.0, "3")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_what_is_no_number_is_a_question_mark() -> None:
    assert number(math.nan) == "?"


def test_figures_read_well() -> None:
    assert [str(figure) for figure in (*FAST.ours, *FREE.ours)] == ["8,000/s", "5/s", "p99 12.3 ms"]


def test_ratio_is_of_the_first_figures() -> None:
    assert FAST.ratio == 0.8
    assert FREE.ratio is None
    assert Row("x", [Figure(1, "s")], [Figure(0, "s")]).ratio is None


def test_aims_hold_at_their_limit_and_join() -> None:
    assert at_least(0.8, 0.8, "").held
    assert not at_least(0.799, 0.8, "").held
    assert not at_least(None, 0.8, "").held
    assert at_most(2.0, 2, "").held
    assert not at_most(None, 2, "").held
    assert not below(1.0, 1, "s").held
    both = below(0.5, 1, "s") & none_of(1, "dropped")
    assert (both.text, both.held) == ("< 1 s, 0 dropped", False)
    assert (below(0.5, 1, "s") & none_of(0, "dropped")).held


def test_nan_meets_no_aim() -> None:
    assert not at_least(math.nan, 0.8, "").held
    assert not below(math.nan, 1, "s").held


def test_table_shows_every_row_and_names_what_was_missed() -> None:
    out = io.StringIO()
    shown = table({"reads": [FAST, SLOW], "sync": [FREE]}, {"machine": "2 cores"}, {"reads": "GETs [all]"})
    Console(file=out, width=200).print(shown)
    lines = out.getvalue().splitlines()
    fast, slow, free = (next(line for line in lines if f"GET /{name}" in line) for name in ("fast", "slow", "free"))
    assert "8,000/s" in fast
    assert "bare: 10,000/s" in fast
    assert "0.80" in fast
    assert "✓" in fast
    assert "3.00" in slow
    assert "✗" in slow
    assert "p99 12.3 ms" in free
    assert "✓" not in free
    assert "✗" not in free
    assert any("1 refused [x]" in line for line in lines)
    assert any("GETs [all]" in line for line in lines)
    assert any("2 cores" in line for line in lines)
    assert "1 of 2 aims missed: GET /slow (aim: ≤ 2 times the bare core)" in lines[-1]


def test_summary() -> None:
    assert "All 1 aims met" in summary([FAST, FREE])
    assert summary([FREE]) == "Nothing here has an aim."


def test_rows_become_json_without_nan() -> None:
    row = Row("x", [Figure(math.nan, "s")], [Figure(1, "s")])
    made = json.loads(json.dumps(row.as_json(), allow_nan=False))
    assert made["pgnode"] == [{"value": None, "unit": "s", "name": ""}]
    assert made["ratio"] is None
    assert SLOW.as_json()["held"] is False


def test_an_earlier_result_stands_beside_a_new_one() -> None:
    earlier, facts = read_results(as_json({"reads": [FAST, FREE]}, {"pgnode": "0.5.0"}))
    now = {"reads": [Row(FAST.what, [Figure(9000, "/s")], [Figure(1, "/s")], "bare", FAST.aim), SLOW]}
    fast, slow = beside(now, earlier, facts["pgnode"])["reads"]
    assert (str(fast.other[0]), fast.other_name, fast.ratio) == ("8,000/s", "0.5.0", 1.125)
    assert fast.aim is FAST.aim
    assert (slow.other, slow.ratio) == ((), None), "it was not measured then"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"facts": {"pgnode": "1"}, "scenarios": {"reads": [1]}}'])
def test_another_file_is_no_earlier_result(content: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own errors among them
        read_results(content)


def test_results_are_read_as_they_were_written() -> None:
    content = as_json({"reads": [FAST, SLOW, FREE], "none": []}, {"pgnode": "0.6.0", "machine": "2 cores"})
    results, facts = read_results(content)
    assert results["reads"][:2] == [FAST, SLOW]
    assert json.loads(as_json(results, facts)) == json.loads(content)


def test_what_was_no_number_is_read_as_none() -> None:
    row = Row("x", [Figure(math.nan, "s")], aim=below(math.nan, 1, "s"))
    [read] = read_results(as_json({"reads": [row]}, {"pgnode": "0.6.0"}))[0]["reads"]
    assert math.isnan(read.ours[0].value)
    assert read.aim is not None
    assert (read.aim.value, read.aim.limit, read.aim_at) == (None, 1, None)


def test_rows_of_older_files_have_an_aim_without_a_limit() -> None:
    made = FAST.as_json()
    del made["aim_value"], made["aim_limit"]
    read = Row.from_json(made)
    assert read.aim is not None
    assert (read.aim.text, read.aim.held, read.aim_at) == ("≥ 0.8 of the bare app", True, None)


def test_limits_are_placed_on_the_scale_of_the_first_figure() -> None:
    ours, other = [Figure(6, "µs"), Figure(90, "ms", "p99")], [Figure(4, "µs")]
    assert Row("its own", ours, other, aim=below(6, 7, "µs") & below(90, 80, "ms")).aim_at == 7
    assert Row("ratio", ours, other, aim=at_most(1.5, 1.25, "of it")).aim_at == 5
    assert Row("what is over", ours, other, aim=below(2, 3, "µs over it")).aim_at == 7
    assert Row("of something else", ours, other, aim=below(90, 80, "ms")).aim_at is None
    assert Row("of something else, alone", ours, aim=below(90, 80, "ms")).aim_at is None
    assert Row("no limit", ours, other, aim=none_of(0, "dropped")).aim_at is None
    assert Row("no aim", ours, other).aim_at is None
    assert Row("no figure", [], aim=below(1, 2, "s")).aim_at is None

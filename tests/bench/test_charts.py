"""Charts: what is drawn of rows, where, and that it is XML."""

from __future__ import annotations

import math
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from bench import charts
from bench.__main__ import as_json, main
from bench.registry import scenarios
from bench.report import Figure, Row, at_most, below, read_results
from tests.generated_docs import ROOT

#: Left, top, right, bottom.
Box = tuple[float, float, float, float]
SVG = "{http://www.w3.org/2000/svg}"
FACTS = {"pgnode": "0.6.0", "machine": "2 cores", "date": "2026-11-30", "Python": "3.11"}
KEPT = ROOT / "docs" / "charts"

BEAR = Row("VLESS", [Figure(0.6, "s/GB")], [Figure(0.5, "s/GB")], "bare core", at_most(1.2, 1.5, "of the bare core"))
PARTS = Row("a call", [Figure(200, "µs"), Figure(150, "µs", "core"), Figure(7, "ms", "p99")], aim=below(200, 100, "µs"))
LONG = "a row with very many words, each of which wants to be read by somebody " * 4
WORD = "unbreakable" * 30


def drawn(*rows: Row, name: str = "made", title: str = "a title") -> ET.Element:
    """The chart of rows."""
    return ET.fromstring(charts.chart(name, rows, FACTS, title))


def texts(chart: ET.Element) -> list[str]:
    return [text.text or "" for text in chart.iter(f"{SVG}text")]


def bars(chart: ET.Element) -> list[ET.Element]:
    """The bars, without the card."""
    return list(chart.iter(f"{SVG}rect"))[1:]


def widths(chart: ET.Element) -> list[float]:
    return [float(bar.get("width", "")) for bar in bars(chart)]


def marks(chart: ET.Element) -> list[float]:
    """Where the marks of aims are."""
    return [float(path.get("d", "").removeprefix("M").split()[0]) for path in chart.iter(f"{SVG}path")]


def apart(one: Box, other: Box) -> bool:
    return one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def boxes(chart: ET.Element) -> list[Box]:
    """Left, top, right, bottom of all texts and bars."""
    found = []
    for text in chart.iter(f"{SVG}text"):
        x, y, size = (float(text.get(name, "")) for name in ("x", "y", "font-size"))
        found.append((x, y - size * 0.8, x + charts.width_of(text.text or "", int(size)), y + size * 0.2))
    for bar in bars(chart):
        x, y, width, height = (float(bar.get(name, "")) for name in ("x", "y", "width", "height"))
        found.append((x, y, x + width, y + height))
    return found


def mark_boxes(chart: ET.Element) -> list[Box]:
    """The same of the marks, which may cross bars."""
    found = []
    for path in chart.iter(f"{SVG}path"):
        x, y, height = map(float, re.findall(r"[\d.]+", path.get("d", "")))
        found.append((x - 1, y, x + 1, y + height))
    return found


def assert_nothing_overlaps(chart: ET.Element) -> None:
    found = boxes(chart)
    words = found[: len(list(chart.iter(f"{SVG}text")))]
    assert not [(mark, text) for mark in mark_boxes(chart) for text in words if not apart(mark, text)]
    width, height = float(chart.get("width", "")), float(chart.get("height", ""))
    for at, one in enumerate(found):
        assert one[0] >= 0
        assert one[1] >= 0
        assert one[2] <= width, one
        assert one[3] <= height, one
        for other in found[:at]:
            assert apart(one, other), (one, other)


def test_bars_are_as_long_as_their_values() -> None:
    chart = drawn(Row("x", [Figure(10, "s")], [Figure(5, "s")], "before"), Row("y", [Figure(2.5, "s")]))
    longest, half, quarter = widths(chart)
    assert half == pytest.approx(longest / 2, abs=0.1)
    assert quarter == pytest.approx(longest / 4, abs=0.1)


def test_values_are_told_with_their_units_and_sides() -> None:
    assert {"pgnode: 0.600 s/GB", "bare core: 0.500 s/GB", "VLESS"} <= set(texts(drawn(BEAR)))


def test_only_figures_of_the_first_unit_are_bars() -> None:
    chart = drawn(PARTS)
    assert len(bars(chart)) == 2
    assert {"200 µs", "core 150 µs"} <= set(texts(chart))
    assert not any("p99" in text for text in texts(chart))


def test_a_mark_stands_where_the_limit_is() -> None:
    chart = drawn(BEAR)
    [mark] = marks(chart)
    ours, bare = bars(chart)
    left = float(ours.get("x", ""))
    assert mark - left == pytest.approx(1.5 * float(bare.get("width", "")), abs=0.2)


def test_a_limit_far_away_is_told_and_not_drawn() -> None:
    chart = drawn(Row("x", [Figure(1, "s")], aim=below(1, 100, "s")))
    assert marks(chart) == []
    assert "aim met: < 100 s" in texts(chart)


def test_a_value_makes_room_for_the_mark_beside_it() -> None:
    near = drawn(Row("x", [Figure(100, "s")], aim=below(100, 102, "s")))
    [mark] = marks(near)
    [value] = [text for text in near.iter(f"{SVG}text") if text.text == "100 s"]
    assert float(value.get("x", "")) > mark
    assert "aim met, at the mark: < 102 s" in texts(near)


def test_what_all_rows_aim_at_is_told_once() -> None:
    missed = Row(
        "Trojan", [Figure(0.9, "s/GB")], [Figure(0.5, "s/GB")], "bare core", at_most(1.8, 1.5, "of the bare core")
    )
    found = texts(drawn(BEAR, missed))
    assert [text for text in found if "1.5" in text] == ["aim, at the mark: ≤ 1.5 of the bare core"]
    assert found.count("aim missed") == 1


def test_source_is_told() -> None:
    assert texts(drawn(BEAR))[-1] == "pgnode 0.6.0 · 2 cores · 2026-11-30"
    assert ET.fromstring(charts.chart("x", [BEAR], {}, "")).find(f"{SVG}title") is not None


def test_it_is_told_in_words_for_who_cannot_see_it() -> None:
    chart = drawn(BEAR)
    title, desc = chart.find(f"{SVG}title"), chart.find(f"{SVG}desc")
    assert title is not None
    assert desc is not None
    assert title.text == "made: a title"
    assert desc.text == "VLESS: pgnode: 0.600 s/GB, bare core: 0.500 s/GB, aim ≤ 1.5 of the bare core met"
    assert chart.get("aria-labelledby") == f"{title.get('id')} {desc.get('id')}"


def test_texts_are_escaped() -> None:
    odd = "<b>&\"'\x00\ud800"
    chart = drawn(Row(odd, [Figure(1, odd, odd)], [Figure(2, odd)], odd), name='a b"<', title=odd)
    assert "<b>&\"'\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}" in texts(chart)


def test_nothing_outside_is_referred_to() -> None:
    text = charts.chart("x", [BEAR, PARTS], FACTS, "")
    assert "href" not in text
    assert "url(" not in text
    assert text.count("http") == 1, "the name of SVG"


def test_what_is_no_number_has_no_bar() -> None:
    chart = drawn(
        Row("x", [Figure(math.nan, "s", "age")], [Figure(math.inf, "s")], "other"), Row("y", [Figure(1, "s")])
    )
    assert len(bars(chart)) == 1
    assert {"pgnode: age not measured", "other: not measured"} <= set(texts(chart))


def test_less_than_nothing_has_no_bar() -> None:
    chart = drawn(Row("x", [Figure(-2.5, "µs")]), Row("y", [Figure(1, "µs")]))
    assert len(bars(chart)) == 1
    assert "-2.50 µs" in texts(chart)


def test_nothing_to_draw_is_no_chart() -> None:
    nothing = [Row("x", [Figure(math.nan, "s")]), Row("y", []), Row("z", [Figure(0, "s")])]
    assert charts.charts({"a": nothing, "b": [], "c": [BEAR]}, FACTS, {}).keys() == {"c"}
    assert charts.charts({}, FACTS, {}) == {}


def test_units_do_not_share_a_scale() -> None:
    chart = drawn(Row("x", [Figure(1, "s")]), Row("y", [Figure(5000, "/s")]))
    assert len(set(widths(chart))) == 2, "each is the longest of its panel, beside values of different lengths"
    assert min(widths(chart)) > 300


def test_main_rows_of_a_scenario_are_chosen() -> None:
    rows = [Row(f"VLESS, upload, {streams}", [Figure(1, "s/GB")]) for streams in ("1 stream", "8 streams")]
    assert [found for _, found in charts.panels_of("plane", rows)] == [rows[1:]]
    assert set(charts.PANELS) <= set(scenarios())


@pytest.mark.parametrize("words", [LONG, WORD, f"{WORD} {LONG}"])
def test_nothing_overlaps_with_long_words(words: str) -> None:
    row = Row(words, [Figure(1, "s", words), Figure(2, "s", "b")], [Figure(3, "s")], words, below(1, 0.5, words))
    assert_nothing_overlaps(drawn(row, BEAR, row, PARTS, title=words))


values = st.one_of(st.none(), st.floats(width=32))
figures = st.lists(
    st.builds(
        lambda value, unit, name: Figure(math.nan if value is None else value, unit, name),
        values,
        st.sampled_from(["s", "/s"]),
        st.text(max_size=40),
    ),
    max_size=3,
)
rows_of_any_kind = st.builds(
    lambda what, ours, other, name, limit: Row(
        what, ours, other, name, None if limit is None or not ours else below(ours[0].value, limit, "s")
    ),
    st.text(max_size=80),
    figures,
    figures,
    st.text(max_size=40),
    st.one_of(st.none(), st.floats(min_value=0, max_value=1e6)),
)


@given(st.lists(rows_of_any_kind, max_size=4))
def test_any_rows_make_xml_in_which_nothing_overlaps(rows: list[Row]) -> None:
    text = charts.chart("x", rows, FACTS, "any")
    assert text == charts.chart("x", rows, FACTS, "any")
    if text:
        assert_nothing_overlaps(ET.fromstring(text))


def test_charts_are_drawn_from_a_file(tmp_path: Path) -> None:
    file, folder = tmp_path / "made.json", tmp_path / "a" / "b"
    file.write_text(as_json({"plane": [], "other": [BEAR]}, FACTS), encoding="utf-8")
    shown = CliRunner().invoke(main, ["--from", str(file), "--charts", str(folder)])
    assert shown.exit_code == 0, shown.output
    assert "VLESS" in shown.output
    assert [path.name for path in folder.iterdir()] == ["other.svg"]
    assert (folder / "other.svg").read_text(encoding="utf-8") == charts.chart("other", [BEAR], FACTS, "")


def test_a_file_is_shown_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "made.json"
    file.write_text("{}", encoding="utf-8")
    named = CliRunner().invoke(main, ["plane", "--from", str(file)])
    assert (named.exit_code, "leave the scenarios out" in named.output) == (2, True)
    broken = CliRunner().invoke(main, ["--from", str(file)])
    assert (broken.exit_code, "no results of the bench" in broken.output) == (2, True)


@pytest.mark.parametrize("path", sorted(KEPT.glob("*.json")), ids=lambda path: path.name)
def test_kept_charts_are_those_of_their_results(path: Path) -> None:
    results, facts = read_results(path.read_text(encoding="utf-8"))
    titles = {name: item.title for name, item in scenarios().items()}
    for name, text in charts.charts(results, facts, titles).items():
        assert (KEPT / f"{name}.svg").read_text(encoding="utf-8") == text, (
            f"run python -m bench --from {path} --charts {KEPT}"
        )

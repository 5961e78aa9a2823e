"""Charts of results: an SVG file for each scenario, bars beside what they are called. Pure.

A chart is a white card, so that it can be read on a light and on a dark page. The same results make the same bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from bench.report import Figure, Row

WIDTH, MARGIN = 860, 24
#: Where a row's words are, left of its bars.
WORDS_WIDTH = 270
#: Space that values get at most, right of the longest bar; longer ones are cut.
VALUES_WIDTH = 250
BAR, LINE, GAP = 14, 16, 12
FONT_SIZE, SMALL, TITLE_SIZE = 12, 11, 16
#: Of a font's size, what a character takes on average. More than usual fonts take, so that nothing is cut off.
CHARACTER = 0.62
#: A limit further away than so many times the longest bar is not drawn, for the bars would be too short to compare.
FAR = 4.0
#: What a card is made of.
INK, MUTED, OURS, PARTS, OTHER, MARK, MISSED = (
    "#1f2328",
    "#59636e",
    "#2f6fb5",
    "#8fb8e0",
    "#a8adb3",
    "#1f2328",
    "#b42318",
)
#: Facts of the line below.
FACTS = ("pgnode", "machine", "core", "date", "load")


@dataclass(frozen=True, slots=True)
class Panel:
    """Rows of a scenario that share a scale: those whose words ``rows`` (a regular expression) finds."""

    heading: str
    rows: str


#: The main rows of a scenario. One that is not named here shows all, in a panel for each unit.
PANELS: Mapping[str, Sequence[Panel]] = {
    "plane": (Panel("the core's processor time, eight streams at once", ", 8 streams$"),),
    "churn": (
        Panel("processor time of a connection, in all and by process", "^a connection"),
        Panel("processor time of a line of the log, in all and by process", "^a line"),
    ),
    "sync": (Panel("calls a second", " connections$"),),
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a row."""

    figure: Figure
    text: str
    colour: str


def charts(results: Mapping[str, Sequence[Row]], facts: Mapping[str, str], titles: Mapping[str, str]) -> dict[str, str]:
    """Scenario -> its chart, for those that have a row with a number. ``titles`` has a sentence for each."""
    made = {name: chart(name, rows, facts, titles.get(name, "")) for name, rows in results.items()}
    return {name: text for name, text in made.items() if text}


def chart(name: str, rows: Sequence[Row], facts: Mapping[str, str], title: str) -> str:
    """The chart of one scenario; empty where there is nothing to draw."""
    panels = [(heading, found) for heading, found in panels_of(name, rows) if any(_largest(row) for row in found)]
    if not panels:
        return ""
    top, inner = MARGIN, WIDTH - 2 * MARGIN
    body: list[str] = []
    whole_title, identity = f"{name}: {title}" if title else name, re.sub(r"\W", "-", name)
    for line in wrapped(whole_title, inner, TITLE_SIZE):
        body.append(_text(MARGIN, top + TITLE_SIZE, line, size=TITLE_SIZE, weight="600"))
        top += TITLE_SIZE + 6
    for heading, found in panels:
        drawn, top = _panel(heading, found, top + 6)
        body += drawn
    source = " · ".join(f"pgnode {facts[fact]}" if fact == "pgnode" else facts[fact] for fact in FACTS if fact in facts)
    for line in wrapped(source, inner, SMALL):
        top += LINE
        body.append(_text(MARGIN, top, line, size=SMALL, colour=MUTED))
    height = top + MARGIN
    told = "; ".join(told_row(row) for _, found in panels for row in found)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            f'role="img" aria-labelledby="{identity}-title {identity}-desc" font-family="system-ui, sans-serif">',
            f'<title id="{identity}-title">{_escaped(whole_title)}</title>',
            f'<desc id="{identity}-desc">{_escaped(told)}</desc>',
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8" fill="#ffffff" stroke="#d0d7de"/>',
            *body,
            "</svg>",
            "",
        ]
    )


def panels_of(name: str, rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Heading and rows of each panel of a scenario. Rows without figures are left out."""
    drawn = [row for row in rows if row.ours]
    if name in PANELS:
        return [(panel.heading, [row for row in drawn if re.search(panel.rows, row.what)]) for panel in PANELS[name]]
    units = dict.fromkeys(row.ours[0].unit for row in drawn)
    return [("", [row for row in drawn if row.ours[0].unit == unit]) for unit in units]


def bars_of(row: Row) -> list[Bar]:
    """The bars of a row: all its figures in the unit of the first one."""
    unit = row.ours[0].unit
    ours = [figure for figure in row.ours if figure.unit == unit]
    return [
        *(
            Bar(figure, _told(figure, "pgnode" if row.other and not number else ""), PARTS if number else OURS)
            for number, figure in enumerate(ours)
        ),
        *(Bar(figure, _told(figure, row.other_name), OTHER) for figure in row.other if figure.unit == unit),
    ]


def told_row(row: Row) -> str:
    """A row in words."""
    aim = "" if row.aim is None else f", aim {row.aim.text} {'met' if row.aim.held else 'missed'}"
    return f"{row.what}: {', '.join(bar.text for bar in bars_of(row))}{aim}"


def wrapped(text: str, width: float, size: int) -> list[str]:
    """Lines that are no wider than ``width`` pixels; a word that is longer is cut in pieces."""
    room = max(int(width / (size * CHARACTER)), 1)
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > room:
            lines.append("")
        line = f"{lines[-1]} {word}".strip()
        pieces = [line[at : at + room] for at in range(0, len(line), room)]
        lines[-1:] = pieces
    return lines


def width_of(text: str, size: int) -> float:
    """What a text takes at most, in pixels; an estimate."""
    return len(text) * size * CHARACTER


def _panel(heading: str, rows: Sequence[Row], top: int) -> tuple[list[str], int]:
    """The elements of a panel, and where it ends."""
    body: list[str] = []
    aims = {row.aim.text for row in rows if row.aim is not None}
    common = len(aims) == 1 and len(rows) > 1 and all(row.aim is not None for row in rows)
    if common:
        heading = f"{heading}{'; ' if heading else ''}aim, at the mark: {aims.pop()}"
    for line in wrapped(heading, WIDTH - 2 * MARGIN, FONT_SIZE) if heading else []:
        top += LINE
        body.append(_text(MARGIN, top, line, colour=MUTED))
    top += 10
    bars = {id(row): bars_of(row) for row in rows}
    longest = max(width_of(bar.text, FONT_SIZE) for found in bars.values() for bar in found)
    left = MARGIN + WORDS_WIDTH + 10
    scale = Scale(left, WIDTH - MARGIN - min(longest, VALUES_WIDTH) - 10, _most(rows))
    for row in rows:
        mark = row.aim_at if row.aim_at is not None and row.aim_at <= scale.most else None
        words = [(line, INK) for line in wrapped(row.what, WORDS_WIDTH, FONT_SIZE)]
        if row.aim is not None and not (common and row.aim.held):
            aim = "aim met" if row.aim.held else "aim missed"
            aim += "" if common else f"{'' if mark is None else ', at the mark'}: {row.aim.text}"
            words += [(line, MUTED if row.aim.held else MISSED) for line in wrapped(aim, WORDS_WIDTH, FONT_SIZE)]
        body += [_text(MARGIN, top + FONT_SIZE + LINE * at, line, colour=ink) for at, (line, ink) in enumerate(words)]
        for at, bar in enumerate(bars[id(row)]):
            body += _bar(bar, scale, top + LINE * at, mark if at == 0 else None)
        top += LINE * max(len(words), len(bars[id(row)])) + GAP
    return body, top


@dataclass(frozen=True, slots=True)
class Scale:
    """Where values are: from ``left`` on, the largest at ``right``."""

    left: float
    right: float
    most: float

    def at(self, value: float) -> float:
        """Pixels from the left of the card. What is no number, or below nothing, is at the beginning."""
        share = min(max(value, 0.0), self.most) / self.most if math.isfinite(value) and self.most > 0 else 0.0
        return round(self.left + share * (self.right - self.left), 1)


def _bar(bar: Bar, scale: Scale, top: int, mark: float | None) -> list[str]:
    """A bar, the mark of the aim across it, and its value behind both."""
    end = scale.at(bar.figure.value)
    text = cut(bar.text, VALUES_WIDTH, FONT_SIZE)
    words_at = end + 6
    made = []
    if end > scale.left:
        made.append(
            f'<rect x="{scale.left:g}" y="{top}" width="{end - scale.left:.1f}" height="{BAR}" rx="2" fill="{bar.colour}"/>'
        )
    if mark is not None:
        at = scale.at(mark)
        made.append(f'<path d="M{at:g} {top - 3}v{BAR + 3}" stroke="{MARK}" stroke-width="2"/>')
        if words_at - 4 < at < words_at + width_of(text, FONT_SIZE) + 4:
            words_at = at + 6
    return [*made, _text(round(words_at, 1), top + FONT_SIZE - 1, text)]


def cut(text: str, width: float, size: int) -> str:
    """A text that is no wider than ``width`` pixels."""
    room = int(width / (size * CHARACTER))
    return text if len(text) <= room else f"{text[: room - 1]}…"


def _most(rows: Iterable[Row]) -> float:
    """The value at the end of the scale: the longest bar, or the furthest limit that is not too far."""
    rows = list(rows)
    bar = max(map(_largest, rows))
    return max([bar, *(row.aim_at for row in rows if row.aim_at is not None and row.aim_at <= FAR * bar)])


def _largest(row: Row) -> float:
    return max((bar.figure.value for bar in bars_of(row) if math.isfinite(bar.figure.value)), default=0.0)


def _told(figure: Figure, name: str = "") -> str:
    """A value with what it is of: "bare core: 0.5 s/GB"."""
    value = str(figure) if math.isfinite(figure.value) else f"{figure.name} not measured".strip()
    return f"{name}: {value}" if name else value


def _text(x: float, y: float, text: str, *, size: int = FONT_SIZE, colour: str = INK, weight: str = "") -> str:
    bold = f' font-weight="{weight}"' if weight else ""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}"{bold}>{_escaped(text)}</text>'


def _escaped(text: str) -> str:
    """Text for XML: escaped, and without the characters that it cannot hold."""
    return escape(re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\N{REPLACEMENT CHARACTER}", text))

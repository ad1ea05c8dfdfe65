"""The figure of a timeline: attributes as lines over time, clusters and classes as strips of colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Bool, Float64, Int64

from raydec.pages.figures import ATTRIBUTE_COLORS, LEGEND_BELOW
from raydec.pages.html_page import NUM_COLORS, Plot, plot_text, series_color

HOUR_S, DAY_S = 3600, 86_400
_LINES_PX, _STRIP_PX, _MARGIN_PX = 190, 34, 130
# 0:00 on the date axis is the beginning of 1971, because plotly reads numbers of four digits as years.
EPOCH_MS = 365 * DAY_S * 1000
# Times are rounded to the millisecond, so the largest gap between adjacent windows is this.
_TOUCHING_S = 0.0015


@dataclass(frozen=True, eq=False)
class Cells:
    """The drawn rows and their extent; cells do not overlap, and are in order of time.

    Attributes:
        rows: a row per cell.
        left_s: seconds.
        right_s: seconds.
        is_after_gap: whether nothing was predicted just before a cell; never true for the first.
        every: one of this many rows is drawn.
    """

    rows: Int64[np.ndarray, " cell"]
    left_s: Float64[np.ndarray, " cell"]
    right_s: Float64[np.ndarray, " cell"]
    is_after_gap: Bool[np.ndarray, " cell"]
    every: int


def make_cells(start_s: Float64[np.ndarray, " row"], end_s: Float64[np.ndarray, " row"], most: int) -> Cells:
    """Divide the time among rows: windows that overlap meet halfway between their centres.

    Args:
        start_s: in increasing order.
        end_s: of the same rows.
        most: with more rows than this, the first of every two (or three, and so on) is drawn in the place of
            all of them, up to the next gap.
    """
    centre_s = (start_s + end_s) / 2
    meets = start_s[1:] - end_s[:-1] < _TOUCHING_S
    left_s, right_s = start_s.copy(), end_s.copy()
    left_s[1:][meets] = ((centre_s[1:] + centre_s[:-1]) / 2)[meets]
    left_s = np.maximum.accumulate(left_s)
    right_s[:-1][meets] = left_s[1:][meets]
    right_s = np.maximum(right_s, left_s)

    every = max(1, -(-len(start_s) // most))
    rows = np.arange(0, len(start_s), every)
    stretch = np.concatenate([[0], np.cumsum(~meets)])[: len(start_s)]
    last = np.minimum(rows + every, np.searchsorted(stretch, stretch[rows], side="right")) - 1
    is_after_gap = np.concatenate([[False], left_s[rows[1:]] > right_s[last[:-1]]])[: len(rows)]
    return Cells(rows, left_s[rows], right_s[last], is_after_gap, every)


@dataclass(frozen=True, eq=False)
class Strip:
    """A row of coloured cells below the lines.

    Attributes:
        name: shown beside it.
        colors: number of a colour per cell; -1 for none.
        texts: what a cell is, for each.
    """

    name: str
    colors: Int64[np.ndarray, " cell"]
    texts: Sequence[str]


def timeline_figure(
    name: str,
    title: str,
    cells: Cells,
    lines: dict[str, Float64[np.ndarray, " cell"]],
    strips: Sequence[Strip],
    *,
    scale: tuple[float, float],
    unit: str,
    caption: str,
    alternative: str,
) -> Plot:
    """The timeline of one file.

    Args:
        name: unique on the page.
        title: the heading.
        cells: where rows are drawn.
        lines: the scores of each attribute; NaN for rows without a prediction.
        strips: clusters and classes.
        scale: ends of the axis of scores, the same for all files.
        unit: the title of this axis.
        caption: below the figure.
        alternative: text description.
    """
    figure = go.Figure()
    for attribute, values in lines.items():
        figure.add_trace(_line(attribute, values, cells))
    if strips:
        figure.add_trace(_heatmap(strips, cells))
    height_px = _MARGIN_PX + _LINES_PX * bool(lines) + _STRIP_PX * len(strips)
    share = _STRIP_PX * len(strips) / (height_px - _MARGIN_PX)
    layout = {"xaxis": _time_axis(cells, below="y2" if strips else "y"), "hovermode": "x"}
    if lines:
        layout["yaxis"] = {"title": {"text": unit}, "range": list(scale), "domain": [share, 1]}
    if strips:
        layout["yaxis2"] = {
            "type": "category",
            "autorange": "reversed",
            "domain": [0, max(0.0, share - 0.04) if lines else 1],
            "showgrid": False,
            "fixedrange": True,
        }
    # By default, a figure with one line has no legend.
    figure.update_layout(**layout, showlegend=bool(lines), legend=LEGEND_BELOW, margin={"t": 24})
    return Plot(name, title, alternative, figure, caption, height_px)


def clock(seconds: float, longest_s: float = 0.0) -> str:
    """Seconds as ``1:05.25``, or ``0:01:05.25`` beside times of an hour or more, to the millisecond.

    Args:
        seconds: a time.
        longest_s: the longest time that it is shown with.
    """
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    text = f"{rest // 1000:02d}" + (f".{rest % 1000:03d}".rstrip("0") if rest % 1000 else "")
    if max(seconds, longest_s) < HOUR_S:
        return f"{minutes}:{text}"
    return f"{minutes // 60}:{minutes % 60:02d}:{text}"


def _time_axis(cells: Cells, below: str) -> dict[str, object]:
    """An axis of dates that begins with 0:00, because only such an axis can be zoomed with ticks in min:s."""
    end_s = float(cells.right_s[-1])
    hours, title = ("", "min:s") if end_s < HOUR_S else ("%-H:", "h:min:s")
    if end_s >= DAY_S:
        hours, title = "day %-j, %-H:", "day, h:min:s"
    whole = f"{hours}%M:%S" if hours else "%-M:%S"
    return {
        "type": "date",
        "title": {"text": f"time ({title})"},
        "range": [_milliseconds(float(cells.left_s[0])), _milliseconds(end_s)],
        "tickformatstops": [
            {"dtickrange": [None, 999], "value": f"{whole}.%L"},
            {"dtickrange": [1000, None], "value": whole},
        ],
        "hoverformat": f"{whole}.%L",
        "anchor": below,
    }


def _line(name: str, values: Float64[np.ndarray, " cell"], cells: Cells) -> go.Scatter:
    """A level per cell; levels that touch are connected."""
    x: list[int | None] = []
    y: list[float | None] = []
    for (left, right, is_after_gap), value in zip(_bounds(cells), values.tolist(), strict=True):
        if is_after_gap:
            x.append(left)
            y.append(None)
        x += [left, right]
        y += [None if np.isnan(value) else value] * 2
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        name=plot_text(name),
        # Simplified lines join levels that are a pixel apart by slopes.
        line={"color": ATTRIBUTE_COLORS.get(name), "width": 2, "simplify": False},
        hovertemplate="%{y:.3f}",
    )


def _heatmap(strips: Sequence[Strip], cells: Cells) -> go.Heatmap:
    """All strips; gaps are cells without a value."""
    edges: list[int] = []
    places: list[int | None] = []
    for place, (left, right, is_after_gap) in enumerate(_bounds(cells)):
        if is_after_gap:
            places.append(None)
        if is_after_gap or not edges:
            edges.append(left)
        edges.append(right)
        places.append(place)
    colors = [[None if place is None else _color(strip, place) for place in places] for strip in strips]
    texts = [["" if place is None else plot_text(strip.texts[place]) for place in places] for strip in strips]
    sides = [(number, side) for number in range(NUM_COLORS) for side in (0, 1)]
    return go.Heatmap(
        x=edges,
        y=[plot_text(strip.name, 16) for strip in strips],
        z=colors,
        text=texts,
        hovertemplate="%{text}<extra></extra>",
        colorscale=[[(number + side) / NUM_COLORS, series_color(number)] for number, side in sides],
        zmin=-0.5,
        zmax=NUM_COLORS - 0.5,
        showscale=False,
        hoverongaps=False,
        ygap=3,
        yaxis="y2",
    )


def _color(strip: Strip, place: int) -> int | None:
    number = int(strip.colors[place])
    return None if number < 0 else number % NUM_COLORS


def _bounds(cells: Cells) -> Iterator[tuple[int, int, bool]]:
    columns = cells.left_s.tolist(), cells.right_s.tolist(), cells.is_after_gap.tolist()
    for left_s, right_s, is_after_gap in zip(*columns, strict=True):
        yield _milliseconds(left_s), _milliseconds(right_s), is_after_gap


def _milliseconds(seconds: float) -> int:
    return EPOCH_MS + round(seconds * 1000)

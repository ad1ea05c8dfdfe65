"""One file of a timeline page: its figure, and its rows as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64

from raydec.model.outputs import Outputs
from raydec.pages.html_page import Block, Table
from raydec.pages.timeline_figure import Cells, Strip, clock, make_cells, timeline_figure

_PAD = 0.04
_STREAM = "-"


@dataclass(frozen=True, eq=False)
class FileRows:
    """The rows of a file.

    Attributes:
        file: its name.
        table: rows with ``start`` and ``end``, in order of ``start``.
    """

    file: str
    table: pa.Table

    def numbers(self, name: str) -> Float64[np.ndarray, " row"]:
        """A column; NaN where it has no value."""
        return self.table[name].to_numpy().astype(np.float64)

    def values(self, name: str) -> list[Any]:
        """A column; None where it has no value."""
        return self.table[name].to_pylist()

    @property
    def end_s(self) -> float:
        """The end of the last row, in seconds."""
        return float(self.numbers("end").max())


def file_name(file: str) -> str:
    """The name of a file for a heading."""
    return "standard input" if file == _STREAM else file


def figure_name(place: int) -> str:
    """The name of a file's figure on the page."""
    return f"file-{place}"


def file_blocks(
    files: Sequence[FileRows], outputs: Outputs, label_range: tuple[float, float] | None, most: int
) -> list[list[Block]]:
    """A figure and a table for each file.

    Args:
        files: in order.
        outputs: what the model predicts.
        label_range: of the training labels; None if unknown.
        most: rows of a file that are drawn.
    """
    cells = [make_cells(rows.numbers("start"), rows.numbers("end"), most) for rows in files]
    scale = _scale(files, outputs)
    unit = "score" if label_range is None else "score (labels: {:g} to {:g})".format(*label_range)
    blocks: list[list[Block]] = []
    for place, (rows, drawn) in enumerate(zip(files, cells, strict=True)):
        figure = timeline_figure(
            figure_name(place),
            file_name(rows.file),
            drawn,
            {name: rows.numbers(name)[drawn.rows] for name in outputs.attributes},
            _strips(rows, drawn, outputs),
            scale=scale,
            unit=unit,
            caption=_caption(rows, drawn),
            alternative=_alternative(rows, outputs),
        )
        blocks += [[figure], [_rows_table(rows, drawn, outputs)]]
    return blocks


def _scale(files: Sequence[FileRows], outputs: Outputs) -> tuple[float, float]:
    """One axis for all files, so that they can be compared."""
    columns = [rows.numbers(name) for rows in files for name in outputs.attributes]
    if not columns:
        return 0.0, 1.0
    values = np.concatenate(columns)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    pad = _PAD * (high - low or 1.0)
    return low - pad, high + pad


def _strips(rows: FileRows, cells: Cells, outputs: Outputs) -> list[Strip]:
    strips = []
    clusters = rows.numbers("cluster")[cells.rows]
    if not np.isnan(clusters).all():
        numbers = np.where(np.isnan(clusters), -1, clusters).astype(np.int64)
        strips.append(Strip("cluster", numbers, [f"cluster {number}" for number in numbers.tolist()]))
    for group, names in outputs.classes.items():
        texts = _class_texts(rows, cells.rows, group, names)
        chosen = rows.values(group)
        colors = [names.index(chosen[row]) if chosen[row] in names else -1 for row in cells.rows.tolist()]
        strips.append(Strip(group, np.array(colors, dtype=np.int64), texts))
    return strips


def _class_texts(
    rows: FileRows, chosen: Int64[np.ndarray, " cell"], group: str, names: Sequence[str]
) -> list[str]:
    """The most probable class of some rows, with its probability."""
    probability = np.stack([rows.numbers(f"{group}_{name}") for name in names]).max(axis=0)
    texts = rows.values(group)
    return [
        "–" if (text := texts[row]) is None else f"{text} ({probability[row]:.0%})" for row in chosen.tolist()
    ]


def _caption(rows: FileRows, cells: Cells) -> str:
    count, longest_s = rows.table.num_rows, rows.end_s
    failed = count - rows.table["error"].null_count
    start = clock(float(rows.numbers("start").min()), longest_s)
    told = [f"{count:,} row{'s' * (count != 1)} from {start} to {clock(longest_s)}"]
    if failed:
        told.append(f"{failed:,} of them without a prediction")
    if cells.every > 1:
        told.append(f"one in {cells.every} is drawn")
    warnings = dict.fromkeys(text for text in rows.values("warning") if text)
    return "; ".join([*told, *(f"warning: {text}" for text in warnings)]) + "."


def _alternative(rows: FileRows, outputs: Outputs) -> str:
    said = [
        f"{name} from {np.nanmin(values):.2f} to {np.nanmax(values):.2f}, mean {np.nanmean(values):.2f}"
        for name, values in ((name, rows.numbers(name)) for name in outputs.attributes)
    ]
    said += [
        f"{name} most often {found}"
        for name in ("cluster", *outputs.classes)
        if (found := most_frequent(rows.values(name))) is not None
    ]
    return f"Timeline of {file_name(rows.file)} up to {clock(rows.end_s)}: {'; '.join(said)}"


def most_frequent(values: Sequence[object]) -> object | None:
    """The most frequent value, the first one on ties; None without values."""
    known = [value for value in values if value is not None]
    return Counter(known).most_common(1)[0][0] if known else None


def _rows_table(rows: FileRows, cells: Cells, outputs: Outputs) -> Table:
    chosen = cells.rows
    longest_s = rows.end_s
    columns: dict[str, list[str]] = {
        name: [clock(second, longest_s) for second in rows.numbers(column)[chosen].tolist()]
        for name, column in (("from", "start"), ("to", "end"))
    }
    for name in outputs.attributes:
        values = rows.numbers(name)[chosen].tolist()
        columns[name] = ["–" if np.isnan(value) else f"{value:.3f}" for value in values]
    for group, names in outputs.classes.items():
        columns[group] = _class_texts(rows, chosen, group, names)
    for name in ("cluster", "error"):
        texts = rows.table[name].take(pa.array(chosen)).to_pylist()
        if any(text is not None for text in texts):
            columns[name] = ["–" if text is None else str(text) for text in texts]
    return Table(
        f"What is drawn of {file_name(rows.file)}",
        list(columns),
        list(zip(*columns.values(), strict=True)),
        tall=True,
        folded=True,
    )

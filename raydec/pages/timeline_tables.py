"""Tables of a timeline page: its files, the colours of clusters and classes, and the errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from raydec.model.outputs import Outputs
from raydec.pages.html_page import NUM_COLORS, Table, series_color
from raydec.pages.timeline_figure import clock
from raydec.pages.timeline_file import FileRows, figure_name, file_name, most_frequent

MAX_ERRORS = 200
_SWATCH = Markup('<span class="swatch" style="background:{}"></span>{}')
_LINK = Markup('<a href="#figure-{}">{}</a>')


def file_table(files: Sequence[FileRows], outputs: Outputs) -> Table:
    """A row per drawn file, with a link to its figure."""
    kinds = [
        name
        for name in ("cluster", *outputs.classes)
        if any(rows.table[name].null_count < rows.table.num_rows for rows in files)
    ]
    header = ["file", "rows", "ends at", *outputs.attributes, *(f"most frequent {name}" for name in kinds)]
    cells = []
    for place, rows in enumerate(files):
        means = [f"{np.nanmean(rows.numbers(name)):.3f}" for name in outputs.attributes]
        frequent = [most_frequent(rows.values(name)) for name in kinds]
        cells.append(
            [
                _LINK.format(figure_name(place), file_name(rows.file)),
                f"{rows.table.num_rows:,}",
                clock(rows.end_s),
                *means,
                *("–" if value is None else str(value) for value in frequent),
            ]
        )
    return Table("Files", header, cells, tall=True)


def cluster_colors(scored: pa.Table, attributes: Sequence[str]) -> Table:
    """The colour of each cluster, how often it occurs, and the mean attributes of its rows."""
    means = [(name, "mean") for name in attributes]
    groups = scored.group_by("cluster", use_threads=False).aggregate([([], "count_all"), *means])
    rows = [
        [
            _SWATCH.format(series_color(group["cluster"]), group["cluster"]),
            f"{group['count_all']:,}",
            f"{group['count_all'] / len(scored):.0%}",
            *(f"{group[f'{name}_mean']:.3f}" for name in attributes),
        ]
        for group in groups.sort_by("cluster").to_pylist()
    ]
    caption = f"Colours repeat after {NUM_COLORS} clusters." if len(rows) > NUM_COLORS else ""
    return Table("Clusters", ["cluster", "rows", "share", *attributes], rows, caption, tall=True)


def class_colors(scored: pa.Table, group: str, names: Sequence[str]) -> Table:
    """The colour of each class of a group, and how often it is the most probable one."""
    counts = {item["values"]: item["counts"] for item in scored[group].value_counts().to_pylist()}
    rows = [
        [
            _SWATCH.format(series_color(number), name),
            f"{counts.get(name, 0):,}",
            f"{counts.get(name, 0) / len(scored):.0%}",
        ]
        for number, name in enumerate(names)
    ]
    return Table(f"Classes ({group})", [group, "rows", "share"], rows, tall=True)


def error_table(table: pa.Table) -> Table | None:
    """Files with errors; None if there are none."""
    failed = table.filter(pc.is_valid(table["error"]))
    groups = failed.group_by(["file", "error"], use_threads=False)
    found = groups.aggregate([([], "count_all"), ("start", "min")])
    if not found.num_rows:
        return None
    rows = [
        [
            file_name(group["file"]),
            f"{group['count_all']:,}",
            "–" if group["start_min"] is None else clock(group["start_min"]),
            group["error"],
        ]
        for group in found.slice(0, MAX_ERRORS).to_pylist()
    ]
    caption = (
        "" if found.num_rows <= MAX_ERRORS else f"The first {MAX_ERRORS} of {found.num_rows:,} are listed."
    )
    return Table("Errors", ["file", "rows", "first at", "error"], rows, caption, tall=True)

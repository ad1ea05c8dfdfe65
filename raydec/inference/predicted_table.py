"""The finished rows of predictions, for pages that show them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raydec.inference.prediction_output import read_csv
from raydec.model.outputs import Outputs


@dataclass(frozen=True)
class PredictedTable:
    """A finished file of rows, and what its columns mean.

    Attributes:
        path: ``.csv`` or ``.parquet``.
        schema: its columns.
        outputs: what the model predicts.
        label_range: lowest and highest training label; None if the model does not record them.
    """

    path: Path
    schema: pa.Schema
    outputs: Outputs
    label_range: tuple[float, float] | None

    def read(self) -> pa.Table:
        """All rows, without columns of vectors, which may not fit in memory."""
        names = [field.name for field in self.schema if not pa.types.is_fixed_size_list(field.type)]
        if self.path.suffix.lower() == ".csv":
            return read_csv(self.path, self.schema).select(names)
        return pq.read_table(self.path, columns=names)

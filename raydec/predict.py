"""``python -m raydec.predict MODEL_DIR PATH ... --out FILE``: emotional attributes of recordings."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from raydec.api import predict
from raydec.console.predict_command import STREAM, PredictionProgress, parse_predict, predict_standard_input
from raydec.console.terminal import note, run_entry_point
from raydec.errors import FailedError


def main(arguments: Sequence[str]) -> None:
    """Predict every file that has no row yet and write the table."""
    options = parse_predict(arguments)
    if options.paths == [STREAM]:
        predict_standard_input(options)
        return
    with PredictionProgress() as progress:
        counts = predict(
            options.model,
            options.paths,
            options.out,
            plot=options.plot,
            window_s=options.windows,
            hop_s=options.hop,
            segments=options.segments,
            embeddings=options.embeddings,
            distances=options.distances,
            clip=options.clip,
            label_range=options.label_range and tuple(options.label_range),
            restart=options.restart,
            encoder=options.encoder,
            speaker_means=options.speaker_means,
            num_workers=options.workers,
            address=options.address,
            events=progress,
        )
    note(progress.summary(), verbose=True)
    failures = f", {counts.failed} without a prediction (column 'error' says why)" if counts.failed else ""
    note(f"wrote {options.out}: {counts.rows} rows{failures}")
    if options.plot is not None:
        note(f"wrote {options.plot}: a timeline of each file")
    if counts.failed and counts.failed == counts.rows:
        raise FailedError(
            f"nothing could be predicted; the first of {counts.rows} rows: {counts.first_error}"
        )


if __name__ == "__main__":
    sys.exit(run_entry_point(main))

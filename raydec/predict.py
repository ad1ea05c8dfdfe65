"""``python -m raydec.predict MODEL_DIR PATH ... --out FILE``: emotional attributes of recordings."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from raydec.console.predict_command import PredictionProgress, parse_predict
from raydec.console.terminal import note, run_entry_point


def main(arguments: Sequence[str]) -> None:
    """Predict every file that has no row yet and write the table."""
    options = parse_predict(arguments)
    # torch takes seconds to import: not before the arguments are known to be good.
    from raydec.inference.recordings import predict_recordings
    from raydec.ray_runtime.predict import Spread

    with PredictionProgress() as progress:
        counts = predict_recordings(
            options.model,
            options.paths,
            options.out,
            window_s=options.windows,
            embeddings=options.embeddings,
            distances=options.distances,
            clip=options.clip,
            label_range=options.label_range and tuple(options.label_range),
            restart=options.restart,
            run=Spread(options.workers, options.address),
            events=progress,
        )
    note(progress.summary(), verbose=True)
    failures = f", {counts.failed} without a prediction (column 'error' says why)" if counts.failed else ""
    note(f"wrote {options.out}: {counts.rows} rows{failures}")


if __name__ == "__main__":
    sys.exit(run_entry_point(main))

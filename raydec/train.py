"""``python -m raydec.train [CONFIG.yaml] [key=value ...]``: train one model."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from raydec.console.command_line import parse_config_arguments
from raydec.console.terminal import progress_output, run_entry_point


def main(arguments: Sequence[str]) -> None:
    """Train, then print the scores and where everything was written."""
    config = parse_config_arguments(
        arguments,
        verb="train",
        summary="Train a model. Without a feature store, on the built-in synthetic demo corpus.",
    )
    # torch takes seconds to import: not before the arguments are known to be good.
    from raydec.console.progress import following, print_result
    from raydec.experiment import resolve, train_run

    resolved = resolve(config)
    with progress_output(), following(resolved):
        result = train_run(resolved)
    print_result(resolved, result)


if __name__ == "__main__":
    sys.exit(run_entry_point(main))

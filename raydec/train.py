"""``python -m raydec.train [CONFIG.yaml] [key=value ...]``: train one model."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from raydec.api import train
from raydec.config import Config
from raydec.console.command_line import parse_config_arguments
from raydec.console.terminal import progress_output, run_entry_point


def main(arguments: Sequence[str]) -> None:
    """Train, then print the scores and the paths of the written files."""
    config = parse_config_arguments(
        arguments,
        verb="train",
        summary="Train a model. Without a feature store, on the built-in synthetic demo corpus.",
    )
    result = train(config, watch=_watching)
    from raydec.console.progress import print_result

    print_result(result)


@contextmanager
def _watching(config: Config) -> Iterator[None]:
    from raydec.console.progress import following

    with progress_output(), following(config):
        yield


if __name__ == "__main__":
    sys.exit(run_entry_point(main))

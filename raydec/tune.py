"""``python -m raydec.tune [tune_configs/X.yaml] [key=value ...]``: search for good settings."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from raydec.api import search
from raydec.console.command_line import parse_config_arguments
from raydec.console.terminal import progress_output, run_entry_point
from raydec.search.config import TuneConfig

if TYPE_CHECKING:
    from raydec.console.trial_lines import TrialLines
    from raydec.search.plan import SearchPlan


def main(arguments: Sequence[str]) -> None:
    """Search, or resume an interrupted search of the same name; then print the results.

    Raises:
        SystemExit: with status 1 if every trial failed.
    """
    config = parse_config_arguments(
        arguments,
        verb="tune",
        summary="Search for good settings; an interrupted search of the same name is resumed.",
        schema=TuneConfig,
    )
    results = search(config, watch=_watching)
    from raydec.console.search_results import print_search

    print_search(results)
    if results.all_failed:
        sys.exit(1)


@contextmanager
def _watching(plan: SearchPlan, num_ended: int) -> Iterator[TrialLines]:
    from raydec.console.trial_lines import TrialLines

    with progress_output(), TrialLines(plan, num_ended=num_ended) as lines:
        yield lines


if __name__ == "__main__":
    sys.exit(run_entry_point(main))

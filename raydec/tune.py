"""``python -m raydec.tune [tune_configs/X.yaml] [key=value ...]``: search for good settings."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from raydec.console.command_line import parse_config_arguments
from raydec.console.terminal import note, progress_output, run_entry_point
from raydec.experiment import search_on_ray
from raydec.placement import check_this_machine
from raydec.ray_runtime.session import check_address
from raydec.search.config import TuneConfig
from raydec.search.plan import plan_search


def main(arguments: Sequence[str]) -> None:
    """Search, or go on with an interrupted search of the same name; then print what came of it.

    Raises:
        SystemExit: with status 1 when every trial failed.
    """
    config = parse_config_arguments(
        arguments,
        verb="tune",
        summary="Search for good settings; an interrupted search of the same name is gone on with.",
        schema=TuneConfig,
    )
    assert isinstance(config, TuneConfig)
    plan = plan_search(config)
    search = config.search
    check_this_machine(
        config.ray,
        plan.num_trials,
        gpus_per_worker=search.gpus_per_worker,
        max_concurrent=search.max_concurrent,
    )
    if not Path(config.output_dir, config.search_name, "results.json").exists():
        check_address(config.ray.address)
    # torch and Ray take seconds to import: not before the search is known to make sense.
    from raydec.console.search_results import print_search
    from raydec.console.trial_lines import TrialLines
    from raydec.pages.search_report import write_search_pages
    from raydec.search.results import conclude
    from raydec.search.state import find_remaining, open_study

    study = open_study(plan)
    remaining = find_remaining(study)
    if remaining.num_trials:
        with progress_output(), TrialLines(plan, num_ended=len(remaining.past)) as lines:
            search_on_ray(study, remaining, lines)
    else:
        note(f"search {study.name} had already finished; its results:")
    results = conclude(study)
    write_search_pages(study, results)
    print_search(study, results)
    if results.all_failed:
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(run_entry_point(main))

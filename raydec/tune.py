"""``python -m raydec.tune [tune_configs/X.yaml] [key=value ...]``: search for good settings."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from raydec.console.command_line import parse_config_arguments
from raydec.console.terminal import note, progress_output, run_entry_point
from raydec.learning.host import WORKER_ENVIRONMENT
from raydec.placement import check_this_machine
from raydec.ray_runtime.session import check_address, start_ray
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
    check_this_machine(plan)
    if not Path(config.output_dir, config.search_name, "results.json").exists():
        check_address(config.ray.address)
    # torch and Ray take seconds to import: not before the search is known to make sense.
    from raydec.console.trial_lines import TrialLines
    from raydec.search.results import conclude
    from raydec.search.run import run_study
    from raydec.search.state import find_remaining, open_study

    study = open_study(plan)
    remaining = find_remaining(study)
    if remaining.num_trials:
        start_ray(
            config.ray.address,
            config.ray.num_cpus,
            config.ray.object_store_gib,
            dashboard=config.ray.dashboard is not False,
            # Where Ray Train's workers train, they get it from there, and the others start faster without.
            worker_environment=WORKER_ENVIRONMENT if config.ray.num_workers == 0 else None,
        )
        with progress_output(), TrialLines(plan, num_ended=len(remaining.past)) as lines:
            run_study(study, remaining, lines)
    else:
        note(f"search {study.name} had already finished; its results:")
    ranking = conclude(study)
    if all(run.state == "failed" for entry in ranking for run in entry.runs):
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(run_entry_point(main))

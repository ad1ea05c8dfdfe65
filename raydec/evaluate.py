"""``python -m raydec.evaluate MODEL_DIR STORE_DIR``: score a model on labeled splits."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from raydec.console.evaluate_command import parse_evaluate, print_evaluation
from raydec.console.terminal import note, progress_bar, run_entry_point, waiting


def main(arguments: Sequence[str]) -> None:
    """Evaluate, print the tables and write the requested files."""
    options = parse_evaluate(arguments)
    # Imported after the arguments are checked, because importing torch takes seconds.
    from raydec.evaluation.output import check_output, write_evaluation
    from raydec.evaluation.scoring import evaluate
    from raydec.learning.host import keep_freed_memory
    from raydec.model.hub import local_model

    if options.out is not None:
        check_output(options.out)
    with waiting("fetching models"):
        model = local_model(options.model)
        against = None if options.against is None else local_model(options.against)
    keep_freed_memory()
    with progress_bar("utterances") as bar:
        task = bar.add_task("predict", total=None)
        evaluation = evaluate(
            model,
            options.store,
            options.split,
            against=against,
            seed=options.seed,
            num_resamples=options.resamples,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print_evaluation(evaluation)
    if options.out is not None:
        sibling = write_evaluation(evaluation, options.out)
        note(f"wrote {options.out} and {sibling}")


if __name__ == "__main__":
    sys.exit(run_entry_point(main))

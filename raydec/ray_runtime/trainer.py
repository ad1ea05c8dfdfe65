"""Ray Train's trainer without the helper processes that a run of raydec has no use for."""

from __future__ import annotations

from typing import Any

from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

# Hands out shards of Ray Data sets; there are none.
_DATASETS = "DatasetsCallback"
# Removes a placement group that outlived its controller; Ray does so itself when the job ends.
_CLEANER = "PlacementGroupCleanerCallback"


class LeanTrainer(DataParallelTrainer):
    """A DataParallelTrainer that starts, and waits for, fewer actors.

    Each helper is a process that imports Ray Data first: 1.6 s of a core at every start of a worker group
    (Ray 2.60). What is left out is named, not imported: where a version calls it otherwise, it stays.

    Args:
        is_whole_job: the run is all that its Ray job does, as opposed to one of a search.
        arguments: of Ray Train's ``DataParallelTrainer``.
    """

    def __init__(self, *, is_whole_job: bool, **arguments: Any) -> None:
        self._left_out = {_DATASETS, _CLEANER} if is_whole_job else {_DATASETS}
        super().__init__(**arguments)

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if type(callback).__name__ not in self._left_out]

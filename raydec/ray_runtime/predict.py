"""Predict parts of a long list of files on a Ray cluster, through Ray Data.

With GPUs, one process per CPU reads files (decodes them and computes spectrograms), and one process per GPU
runs the network on the results. Without GPUs, each process does both: the network then takes most of the
time, so separate readers would only wait for it, and spectrograms, which are hundreds of times as large as
rows, need not be sent between processes.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from raydec.errors import UserError
from raydec.ray_runtime.driver_noise import without_harmless_lines
from raydec.ray_runtime.session import explained_death, start_ray
from raydec.verbosity import verbosity

if TYPE_CHECKING:
    from raydec.inference.audio_inputs import Source
    from raydec.inference.prediction import Predictor
    from raydec.inference.rows import RowOptions
    from raydec.inference.work import Add

FEW_FILES = 500
"""One core predicts this many files in about the time that a local Ray takes to start."""

# Room for the parts in progress: a few per process, each with the spectrograms of a few dozen files.
_OBJECT_STORE_GIB = 1.0
# A file that kills its process will probably kill the replacement too, so more retries would be pointless.
_MAX_RETRIES = 2

Part = Sequence[Any]
"""What to read: names of files, or sources. It is sent as JSON."""
Read = Callable[[Part], bytes]
Score = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Spread:
    """A :data:`raydec.inference.work.Runner` on a Ray cluster; small jobs run in this process.

    Attributes:
        num_workers: processes on CPUs; 0: this process alone; None: decided by the number of files.
        address: cluster to join; default: ``RAY_ADDRESS``, else this machine.
    """

    num_workers: int | None = None
    address: str | None = None

    def __call__(
        self, predictor: Predictor, parts: Sequence[Sequence[Source]], options: RowOptions, add: Add
    ) -> None:
        """Predict all parts."""
        from raydec.inference.work import run_here

        run = run_here if self._stays_here(sum(map(len, parts))) else self._on_ray
        run(predictor, parts, options, add)

    def _stays_here(self, num_files: int) -> bool:
        if self.num_workers is not None or self.address or os.environ.get("RAY_ADDRESS"):
            return self.num_workers == 0
        return num_files < FEW_FILES or (os.cpu_count() or 1) == 1

    def _on_ray(
        self, predictor: Predictor, parts: Sequence[Sequence[Source]], options: RowOptions, add: Add
    ) -> None:
        from raydec.inference.rows import Reader, Scorer, unpack_table

        predict_parts(
            parts,
            Reader(replace(predictor.trained, networks=[], centroids=None), options, os.getcwd()),
            functools.partial(Scorer, predictor.trained, options=options),
            num_workers=self.num_workers,
            address=self.address,
            on_done=lambda content: add(*unpack_table(content)),
        )


def predict_parts(
    parts: Sequence[Part],
    read: Read,
    make_scorer: Callable[[str], Score],
    *,
    num_workers: int | None,
    address: str | None = None,
    on_done: Callable[[bytes], None],
) -> None:
    """Call ``score(read(part))`` for every part, spread over the cluster.

    ``on_done`` is called in this process with each result as soon as it is available, in any order. Each part
    is one row of the data set, and its result is one row too, so a part is either complete or not done.

    Args:
        parts: what to read.
        read: gets a part as decoded from JSON; it and its result must be importable on every node.
        make_scorer: called once per process with its device, ``cpu`` or ``cuda``.
        num_workers: processes on CPUs; None means one per CPU of the cluster.
        address: cluster to join, as in :func:`raydec.ray_runtime.session.start_ray`.
        on_done: receives each result.

    Raises:
        UserError: raised by a call, no cluster at ``address``, or a process that died repeatedly.
    """
    import ray

    start_ray(address, num_cpus=num_workers, object_store_gib=_OBJECT_STORE_GIB)
    _quieten_ray_data()
    resources = ray.cluster_resources()
    num_readers = num_workers or max(int(resources.get("CPU", 1)), 1)
    num_gpus = int(resources.get("GPU", 0))
    # Large arguments would be lost with the process that holds them, and Ray could not restart an actor that
    # needs them. Therefore they are put into the object store once, and actors get a reference.
    work = [ray.put((read, make_scorer))]
    dataset = _pipeline(parts, work, num_readers, num_gpus)
    try:
        with without_harmless_lines():
            for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for result in batch["part"].to_pylist():
                    on_done(result)
    except Exception as error:
        raise _explained(error) from None


def _pipeline(parts: Sequence[Part], work: list[Any], num_readers: int, num_gpus: int) -> Any:
    import ray.data

    # One block per part makes each part a task of its own, so that a slow process does not delay the others.
    items = [{"part": json.dumps(list(part))} for part in parts]
    dataset = ray.data.from_items(items, override_num_blocks=len(parts))
    with warnings.catch_warnings():
        # Ray 2.60 has no named parameters for the number of retries yet, and its default is no limit.
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        if not num_gpus:
            readers = _on_actors(min(num_readers, len(parts)), num_cpus=1)
            return dataset.map_batches(_ReadAndScore, fn_constructor_args=(work,), **readers)
        readers = _on_actors(min(num_readers, len(parts)), num_cpus=1)
        spectrograms = dataset.map_batches(_Read, fn_constructor_args=(work,), **readers)
        scorers = _on_actors(min(num_gpus, len(parts)), num_gpus=1)
        return spectrograms.map_batches(_Score, fn_constructor_args=(work,), **scorers)


def _on_actors(count: int, **resources: int) -> dict[str, Any]:
    from ray.data import ActorPoolStrategy

    retries = {"max_restarts": _MAX_RETRIES, "max_task_retries": _MAX_RETRIES}
    return {"batch_size": 1, "compute": ActorPoolStrategy(size=count), **resources, **retries}


Batch = dict[str, Any]
"""One row: ``part`` is a JSON list of names, or bytes."""


class _Read:
    def __init__(self, work: list[Any]) -> None:
        self._read, _ = _fetch(work)

    def __call__(self, batch: Batch) -> Batch:
        return _as_batch(self._read(_names(batch)))


class _Score:
    def __init__(self, work: list[Any]) -> None:
        _, make_scorer = _fetch(work)
        self._score = make_scorer("cuda")

    def __call__(self, batch: Batch) -> Batch:
        (content,) = batch["part"]
        return _as_batch(self._score(content))


class _ReadAndScore:
    def __init__(self, work: list[Any]) -> None:
        self._read, make_scorer = _fetch(work)
        self._score = make_scorer("cpu")

    def __call__(self, batch: Batch) -> Batch:
        return _as_batch(self._score(self._read(_names(batch))))


def _fetch(work: list[Any]) -> tuple[Read, Callable[[str], Score]]:
    import ray
    import torch

    torch.set_num_threads(1)
    return ray.get(work[0])


def _names(batch: Batch) -> list[str]:
    (names,) = batch["part"]
    # Parts are JSON because file names may contain bytes that are not valid text, which Arrow refuses.
    return json.loads(str(names))


def _as_batch(content: bytes) -> Batch:
    # An object array, because NumPy's own byte strings drop trailing zeros.
    part = np.empty(1, object)
    part[0] = content
    return {"part": part}


def _quieten_ray_data() -> None:
    """Keep Ray Data's progress bars, plans and notices off the terminal; its log files still have them."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Otherwise warnings about waiting operators and exhausted resources would fill the terminal.
    for handler in logging.getLogger("ray.data").handlers:
        if "Session" not in type(handler).__name__:
            handler.setLevel(logging.INFO if verbosity() > 0 else logging.ERROR)


def _explained(error: Exception) -> Exception:
    from ray.exceptions import RayActorError, RayTaskError, WorkerCrashedError

    cause: BaseException | None = error
    while cause is not None:
        inner = cause.cause if isinstance(cause, RayTaskError) else None
        if isinstance(inner, UserError):
            return inner
        if isinstance(cause, RayActorError | WorkerCrashedError):
            return explained_death(cause)
        cause = cause.__cause__ or inner
    return error

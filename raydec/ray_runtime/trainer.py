"""Training with the public API of Ray Train, and code shared with :mod:`fast_start`."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

from ray.exceptions import RayTaskError
from ray.train import ControllerError, Result, UserCallback, WorkerGroupError

from raydec.errors import DivergedError, TakenOverError

if TYPE_CHECKING:
    from ray.train.torch import TorchConfig


def fit_publicly(*, backend: str, timeout_s: int, **arguments: Any) -> Result:
    """Train with Ray's ``TorchTrainer``; needs torch in this process and in the controller's.

    Args:
        backend: ``nccl`` or ``gloo``.
        timeout_s: seconds that a collective may wait.
        arguments: of ``TorchTrainer``.

    Raises:
        KeyboardInterrupt: it was interrupted; the workers are ended.
    """
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(torch_config=_config_type()(backend=backend, timeout_s=timeout_s), **arguments)
    with interrupt_restored():
        try:
            return trainer.fit()
        except SystemExit:  # Ray Train's own handler of Ctrl-C, once the workers are ended
            raise KeyboardInterrupt from None


@functools.cache
def _config_type() -> type[TorchConfig]:
    """Ray's ``TorchConfig``, except that gloo listens on each node's own address.

    See :class:`raydec.ray_runtime.process_group.ProcessGroupConfig`.
    """
    from ray.train.torch import TorchConfig

    from raydec.ray_runtime.process_group import name_interfaces

    backend: Any = TorchConfig().backend_cls

    class NamingBackend(backend):
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            name_interfaces(worker_group)
            super().on_start(worker_group, backend_config)

    class NamingConfig(TorchConfig):
        @property
        def backend_cls(self) -> Any:
            return NamingBackend

    return NamingConfig


class StopRetries(UserCallback):
    """Ends a run that must not be retried; otherwise Ray Train would restart it from its checkpoint."""

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        """See Ray Train's ``UserCallback``; runs in its controller.

        Raises:
            TakenOverError: another process took the run over.
            DivergedError: training diverged.
        """
        found = final_cause(list(worker_exceptions.values()))
        if found is not None:
            raise found


def final_cause(causes: Sequence[BaseException]) -> Exception | None:
    """The first error, among these and their causes, that a retry would repeat or make worse; else None."""
    for error in chain.from_iterable(map(with_wrapped, causes)):
        if isinstance(error, (TakenOverError, DivergedError)):
            return error
    return None


def with_wrapped(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it wraps, as its cause or, in older releases of Ray, as an argument."""
    yield error
    yield from (each for each in (error.__cause__, *error.args) if isinstance(each, BaseException))


def causes_of(error: BaseException) -> list[Exception]:
    """The errors behind a failed run: those of the workers, by rank, or that of the controller."""
    if isinstance(error, WorkerGroupError):
        return list(error.worker_failures.values())
    if isinstance(error, ControllerError):
        return [error.controller_failure]
    return [error.cause] if isinstance(error, RayTaskError) else []


@contextmanager
def interrupt_restored() -> Iterator[None]:
    """Restore the handler of Ctrl-C after the block, because Ray Train sets its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if before is not None:  # None: not set from Python
            signal.signal(signal.SIGINT, before)

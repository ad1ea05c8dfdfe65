"""Optional experiment trackers: Weights & Biases and MLflow, each with its own extra.

They record the content of ``metrics.jsonl``, epoch by epoch, and the resolved settings. A tracker that fails
during a run is dropped with a warning, so that training continues.

Each run of a search is recorded in the same way. Ray Tune's callbacks are not used, because they would record
one score per trial, but a trial may consist of several runs with many metrics each.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from raydec.config import Config, iterate_keys
from raydec.errors import UserError

logger = logging.getLogger(__name__)

Numbers = Mapping[str, float | int | None]


class Tracker(Protocol):
    """A service that records runs."""

    def log(self, metrics: Numbers, epoch: int) -> None:
        """Record the metrics of an epoch."""
        ...

    def finish(self, summary: Numbers) -> None:
        """Record the final scores and close the run."""
        ...


class WandbTracker:
    """Weights & Biases; ``WANDB_MODE=offline`` keeps the run on this machine.

    Args:
        config: of the run.
        folder: folder of its local files.
    """

    def __init__(self, config: Config, folder: str) -> None:
        import wandb

        self._run = wandb.init(
            project=config.tracking.project,
            name=config.name,
            id=_identity(config),
            resume="allow",
            dir=folder,
            config=flat_settings(config),
            settings=wandb.Settings(silent=True),
        )

    def log(self, metrics: Numbers, epoch: int) -> None:
        """See :class:`Tracker`."""
        self._run.log(_known(metrics), step=epoch)

    def finish(self, summary: Numbers) -> None:
        """See :class:`Tracker`."""
        self._run.summary.update(_known(summary))
        self._run.finish()


class MlflowTracker:
    """MLflow, at ``MLFLOW_TRACKING_URI`` or MLflow's own default location.

    Args:
        config: of the run.
        folder: not used, because MLflow has its own storage.
    """

    def __init__(self, config: Config, folder: str) -> None:
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient()
        experiment = self._client.get_experiment_by_name(config.tracking.project)
        number = (
            experiment.experiment_id
            if experiment
            else self._client.create_experiment(config.tracking.project)
        )
        # A resumed run is resumed in MLflow too.
        found = self._client.search_runs([number], f"tags.raydec_run = '{_identity(config)}'", max_results=1)
        if found:
            self._run = found[0].info.run_id
            return
        tags = {"raydec_run": _identity(config)}
        self._run = self._client.create_run(number, run_name=config.name, tags=tags).info.run_id
        for key, value in flat_settings(config).items():
            self._client.log_param(self._run, key, value)

    def log(self, metrics: Numbers, epoch: int) -> None:
        """See :class:`Tracker`."""
        for name, value in _known(metrics).items():
            self._client.log_metric(self._run, name, value, step=epoch)

    def finish(self, summary: Numbers) -> None:
        """See :class:`Tracker`."""
        for name, value in _known(summary).items():
            self._client.log_metric(self._run, f"final/{name}", value)
        self._client.set_terminated(self._run)


_TRACKERS: dict[str, Callable[[Config, str], Tracker]] = {"wandb": WandbTracker, "mlflow": MlflowTracker}


def check_trackers(config: Config) -> None:
    """Refuse a service that is not installed, before anything is trained.

    Raises:
        UserError: a service is not installed; the message names the extra.
    """
    for service in config.tracking.services:
        if importlib.util.find_spec(service) is None:
            raise UserError(
                f'tracking.services={service} needs {service}; install with: pip install "raydec[{service}]"'
            )


class Trackers:
    """All trackers of a run.

    Args:
        config: of the run.
        folder: the run directory, on this machine.
    """

    def __init__(self, config: Config, folder: str) -> None:
        self._config = config
        self._folder = folder
        self._trackers: dict[str, Tracker] | None = None

    def log(self, metrics: Numbers, epoch: int) -> None:
        """Record an epoch; the first one starts the trackers, so runs that fail early are not recorded."""
        self._call("log", metrics, epoch)

    def finish(self, summary: Numbers) -> None:
        """Record the final scores and close all trackers."""
        self._call("finish", summary)

    def _call(self, method: str, *arguments: Any) -> None:
        for service in self._open():
            try:
                assert self._trackers is not None
                getattr(self._trackers[service], method)(*arguments)
            except Exception as error:  # clients may raise any exception
                self._drop(service, error)

    def _open(self) -> Sequence[str]:
        if self._trackers is None:
            self._trackers = {}
            for service in self._config.tracking.services:
                try:
                    self._trackers[service] = _TRACKERS[service](self._config, self._folder)
                except Exception as error:  # as above
                    self._drop(service, error)
        return list(self._trackers)

    def _drop(self, service: str, error: Exception) -> None:
        assert self._trackers is not None
        self._trackers.pop(service, None)
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        logger.warning("%s no longer records this run: %s", service, reason)


def flat_settings(config: Config) -> dict[str, Any]:
    """Every setting by its dotted key."""
    tree = config.model_dump(mode="json")

    def value(key: str) -> Any:
        found: Any = tree
        for part in key.split("."):
            found = found[part]
        return found

    return {key: value(key) for key, *_ in iterate_keys(type(config))}


def _identity(config: Config) -> str:
    """An id that is the same for all attempts of one run, but differs for other runs of the same name."""
    import hashlib

    text = f"{config.storage_path or config.output_dir}/{config.name}"
    return f"{config.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _known(numbers: Numbers) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items() if value is not None}

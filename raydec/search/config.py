"""The settings of a search: a run's settings and a section ``search``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from raydec.config import Config, FoldsConfig, Section

DEFAULT_SPACE: dict[str, Any] = {
    "clustering.num_clusters": {"randint": [5, 60]},
    "loss.cluster_weight": {"loguniform": [0.05, 5.0]},
}
"""The default space if neither a space nor variants are given."""


class SearchConfig(Section):
    """The space, the searcher and scheduler, and the resources of a search."""

    space: dict[str, Any] | None = Field(
        None,
        description="config key -> [values] or one of grid, choice, randint, uniform, loguniform, quniform; "
        "unset: cluster count and cluster weight",
    )
    variants: tuple[dict[str, Any] | tuple[dict[str, Any], ...], ...] = Field(
        (),
        description="maps of config keys to values set together, or lists of such maps, which are crossed "
        "with each other; each is crossed with the space",
    )
    searcher: Literal["random", "grid", "optuna"] = Field(
        "random", description="random draws, every combination, or Optuna's TPE"
    )
    scheduler: Literal["none", "asha", "pbt"] = Field(
        "none", description="train all trials to the end, stop poor ones early, or population based training"
    )
    num_samples: int = Field(
        10, ge=1, description="settings drawn by random and optuna; size of the population of pbt"
    )
    metric: str = Field("valid/ccc", description="key of metrics.jsonl, read at the epoch that is kept")
    mode: Literal["max", "min"] = Field("max", description="whether a large or a small metric is good")
    seeds: tuple[int, ...] = Field(
        (31,), min_length=1, description="every setting is trained once per seed; its score is the mean"
    )
    folds: FoldsConfig | None = Field(
        None,
        description="cross-validation: every setting is trained once per fold, as {by: speaker, k: 5}",
    )
    max_concurrent: int | None = Field(
        None, ge=1, description="trials at a time; unset: as many as the cluster can place"
    )
    gpus_per_worker: float = Field(
        1.0, gt=0, le=1, description="share of a GPU per worker, so that several trials fit on one"
    )
    grace_epochs: int = Field(
        3, ge=1, description="epochs before asha may stop a trial, or between two exchanges of pbt"
    )
    reduction_factor: float = Field(3.0, gt=1, description="asha continues the best 1/factor of each rung")
    max_retries: int = Field(1, ge=0, description="how often a failed trial is retried")


class TuneConfig(Config):
    """A run's settings, shared by all trials, and the search over them. ``seed`` is the searcher's."""

    search: SearchConfig = Field(default_factory=SearchConfig, description="")

    @property
    def search_name(self) -> str:
        """The given name, or one derived from the store's name, so that the same search is found again."""
        stem = "demo" if self.data.store is None else Path(self.data.store).absolute().name
        return self.name or f"{stem}-search"

"""The keys of a run's ``metrics.jsonl``, so that a search for an unknown metric is refused at the start."""

from __future__ import annotations

from raydec.config import Config
from raydec.learning.recipes import KEPT_EPOCH
from raydec.learning.targets.registry import target_metrics

_PHASES = (
    "epoch",
    "validate",
    "train",
    "embed",
    "kmeans",
    "kmeans_gather",
    "kmeans_fit",
    "kmeans_broadcast",
)


def known_metrics(config: Config) -> set[str]:
    """Every key that an epoch of this run may write, except ``epoch``."""
    clusters = config.model.kind == "deepemocluster"
    names = {"throughput/chunks_per_s"} | target_metrics(config)
    names |= {f"time/{phase}_s" for phase in _PHASES if clusters or not phase.startswith(("kmeans", "embed"))}
    by_stage = {f"train/loss_{term}" for term in _unsupervised_terms(config)}
    if clusters:
        by_stage |= {
            f"cluster/{name}" for name in ("nmi_previous", "empty", "largest_share", "iterations", "inertia")
        }
        for attribute in config.data.attributes:
            names |= {f"cluster/{number}_{attribute}" for number in ("eta2", "epsilon2", "eta2_p")}
        names |= {"cluster/emotion_mi", "cluster/emotion_nmi"}
    names |= by_stage
    if config.training.selection != "best":
        names.add(KEPT_EPOCH)
    if _has_unlabeled_stage(config):
        names |= {f"{name}_unlabeled" for name in by_stage}
    return names


def _unsupervised_terms(config: Config) -> set[str]:
    terms = {
        "deepemocluster": {"cluster"},
        "regressor": set(),
        "autoencoder": {"reconstruction"},
        "vae": {"reconstruction", "divergence"},
    }[config.model.kind]
    return terms | ({"triplet"} if config.model.temporal == "triplet" else set())


def _has_unlabeled_stage(config: Config) -> bool:
    return (
        config.schedule == "two_stage"
        and config.model.kind != "regressor"
        and config.data.unlabeled_utterances != 0
    )

"""The effect of each part of the cluster branch: ``python -m benchmarks.diagnosis WORK_DIR NAME=STORE …``.

Parts of the published clustering are added one at a time to the network of the modern recipe, which is
compared with the same network without clusters. With ``--folds``, the n-th seed tests on the n-th fold,
validates on the next and trains on the others. Finished runs of an earlier call are kept. Needs matplotlib.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from sklearn.metrics import adjusted_mutual_info_score
from torch.nn.modules.module import register_module_forward_pre_hook

from benchmarks.laboratory import NUM_CLUSTERS, Corpus, command_of, corpora_of, laboratory_parser, test_split
from benchmarks.report import machine, table, write_results
from raydec.config import ClusteringConfig
from raydec.learning.clustering import KMeansResult, nearest_centroid
from raydec.learning.data import select_data
from raydec.learning.losses import CccLoss, cluster_loss_sum
from raydec.model.network import DeepEmoCluster, Head
from raydec.pages.finished_run import FinishedRun, score_split

ATTRIBUTES = ("arousal", "dominance", "valence")
BLIND = {"clustering.label_weight": 0}
GENTLE = 1 / math.log(NUM_CLUSTERS)


@dataclass(frozen=True)
class Variant:
    """One way to train, described by its differences from the modern recipe.

    Attributes:
        name: for the table.
        settings: dotted keys.
        fit: finds centroids instead of K-means.
        detached: the cluster loss has no gradient for the trunk.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    fit: Callable[..., KMeansResult] | None = None
    detached: bool = False


def random_partition(
    embeddings: np.ndarray, config: ClusteringConfig, *, seed: int, **_: Any
) -> KMeansResult:
    """The same random cluster for a chunk in every epoch, whatever its embedding."""
    labels = np.random.default_rng(0).integers(config.num_clusters, size=len(embeddings)).astype(np.int32)
    centroids = np.stack([embeddings[labels == k].mean(axis=0) for k in range(config.num_clusters)])
    sizes = np.bincount(labels, minlength=config.num_clusters)
    return KMeansResult(centroids.astype(np.float32), labels, 0.0, 1, sizes, "random")


REGRESSOR = Variant("no clusters", {"model.kind": "regressor"})
BALANCED = Variant(
    "balanced draws, weight 0", BLIND | {"training.draws": "balanced", "loss.cluster_weight": 0}
)
PLAIN = Variant("K-means, 1 / ln K", BLIND)
FULL = Variant("K-means, weight 1", BLIND | {"loss.cluster_weight": 1.0})
SEEING = Variant("K-means that sees labels, 1 / ln K (modern)")
RANDOM = Variant("random partition, 1 / ln K", BLIND, random_partition)
VARIANTS = [
    REGRESSOR,
    BALANCED,
    Variant("K-means, weight 0", BLIND | {"loss.cluster_weight": 0}),
    Variant("K-means, weight 0.1", BLIND | {"loss.cluster_weight": 0.1}),
    PLAIN,
    FULL,
    Variant("K-means, weight 1, balanced draws", FULL.settings | {"training.draws": "balanced"}),
    Variant("K-means, weight 1, fresh heads", FULL.settings | {"clustering.head": "reset"}),
    Variant("K-means, weight 1, no gradient for the trunk", FULL.settings, detached=True),
    RANDOM,
    Variant("random partition, weight 1", FULL.settings, random_partition),
    SEEING,
    Variant("K-means that sees labels, weight 1", {"loss.cluster_weight": 1.0}),
]
FOLLOWED = (PLAIN, SEEING, RANDOM)
"""Variants whose gradients are compared, after these numbers of epochs:"""
MOMENTS = (1, 3, 10, 30)


def trained(corpus: Corpus, variant: Variant, number: int, epochs: int | None = None) -> FinishedRun:
    """A variant's run with the seed of this number; ``epochs`` may shorten it."""
    epochs = epochs or corpus.epochs
    settings = variant.settings | {"data.unlabeled_utterances": 0, "training.epochs": epochs}
    with detached_clusters() if variant.detached else contextlib.nullcontext():
        return corpus.run(number, settings, f"{variant.name}-e{epochs}", variant.fit)


@contextlib.contextmanager
def detached_clusters() -> Iterator[None]:
    """Cut the gradient from the cluster head to the trunk: a pass reaches the head first."""
    state = {"heads": 0}

    def hook(module: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if isinstance(module, DeepEmoCluster):
            state["heads"] = 0
        if isinstance(module, Head):
            state["heads"] += 1
            if state["heads"] == 1:
                return tuple(value.detach() for value in inputs)
        return None

    handle = register_module_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def test_ccc(run: FinishedRun) -> list[float]:
    """CCC of the test split by attribute."""
    return [run.summary["ccc"][test_split(run)][name] for name in ATTRIBUTES]


def explained(run: FinishedRun) -> dict[str, float]:
    """How well clusters of test utterances explain speaker, emotion and length; 0 by chance, at most 1."""
    view = score_split(run, test_split(run))
    clusters = view.clusters
    assert clusters is not None
    known = {"speaker": view.column("speaker"), "emotion": view.column("emotion")}
    lengths = np.array(view.table["duration_s"].to_pylist())
    known["length"] = np.searchsorted(np.quantile(lengths, [0.25, 0.5, 0.75]), lengths).tolist()
    return {name: adjusted_mutual_info_score(values, clusters) for name, values in known.items()}


def gradient_cosine(run: FinishedRun, fit: Callable[..., KMeansResult] | None) -> float:
    """Mean cosine of the gradients of both losses for the trunk, over batches of 16 training utterances."""
    data = select_data(run.config, run.store)
    network, per = run.trained.networks[0][1].eval(), data.labeled.num_chunks
    parameters = list(network.encoder.parameters())
    labels = data.labeled.labels(ATTRIBUTES)
    labels = torch.from_numpy((labels - labels.mean(axis=0)) / labels.std(axis=0)).float()
    partition = np.random.default_rng(0).integers(NUM_CLUSTERS, size=len(data.labeled)).astype(np.int64)
    order, cosines = np.random.default_rng(1).permutation(data.labeled.num_utterances), []
    for start in range(0, min(len(order) - 15, 16 * 20), 16):
        utterances = order[start : start + 16]
        rows = (utterances[:, None] * per + np.arange(per)).reshape(-1)
        output = network(data.labeled.gather(rows))
        assert output.cluster_logits is not None and run.trained.centroids is not None
        if fit is random_partition:
            pseudo = partition[rows]
        else:
            embeddings = output.embedding.detach().numpy()
            centroids = run.trained.centroids.astype(np.float32)
            pseudo = nearest_centroid(embeddings, centroids)[0].astype(np.int64)
        emotion = output.emotion.view(len(utterances), per, -1).mean(dim=1)
        criterion = CccLoss()
        losses = (
            cluster_loss_sum(output.cluster_logits, torch.from_numpy(pseudo)) / len(rows),
            criterion.loss(criterion.statistics(emotion, labels[utterances])).float(),
        )
        flat = [
            torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters, retain_graph=True)])
            for loss in losses
        ]
        cosines.append(torch.nn.functional.cosine_similarity(*flat, dim=0).item())
    return statistics.mean(cosines)


def measured(corpus: Corpus) -> dict[str, Any]:
    """All measurements of one corpus."""
    scores: dict[str, list[list[float]]] = {}
    shares: dict[str, list[list[float]]] = {}
    contents: dict[str, list[dict[str, float]]] = {}
    for variant in VARIANTS:
        for number in range(len(corpus.seeds)):
            run = trained(corpus, variant, number)
            scores.setdefault(variant.name, []).append(test_ccc(run))
            if run.trained.centroids is not None:
                contents.setdefault(variant.name, []).append(explained(run))
            if "cluster/epsilon2_arousal" in run.history[-1]:
                means = [
                    statistics.mean(line[f"cluster/epsilon2_{name}"] for name in ATTRIBUTES)
                    for line in run.history
                ]
                shares.setdefault(variant.name, []).append(means)
        print(corpus.name, variant.name, np.mean(scores[variant.name], axis=0).round(3), flush=True)
    cosines = {
        variant.name: {
            epochs: [
                gradient_cosine(trained(corpus, variant, number, epochs), variant.fit)
                for number in range(len(corpus.seeds))
            ]
            for epochs in MOMENTS
            if epochs <= corpus.epochs
        }
        for variant in FOLLOWED
    }
    return {"scores": scores, "epsilon2": shares, "contents": contents, "cosines": cosines}


def difference(numbers: dict[str, Any], name: str) -> tuple[float, float]:
    """Mean CCC minus that without clusters, paired by seed, and the half-width of its 95% interval."""
    means = [np.mean(numbers["scores"][key], axis=1) for key in (name, REGRESSOR.name)]
    paired = means[0] - means[1]
    half = stats.t.ppf(0.975, len(paired) - 1) * paired.std(ddof=1) / math.sqrt(len(paired))
    return float(paired.mean()), float(half)


def page(results: dict[str, dict[str, Any]], corpora: Sequence[Corpus], command: str) -> str:
    """The tables in Markdown."""
    parts = [f"`{command}`\n\n{machine()}."]
    for corpus in corpora:
        numbers = results[corpus.name]
        rows = []
        for variant in VARIANTS:
            means = np.mean(numbers["scores"][variant.name], axis=0)
            change, half = difference(numbers, variant.name)
            content = numbers["contents"].get(variant.name)
            of = [
                f"{statistics.mean(c[key] for c in content):.2f}" if content else ""
                for key in ("speaker", "emotion", "length")
            ]
            shown = "" if variant is REGRESSOR else f"{change:+.3f} ± {half:.3f}"
            rows.append([variant.name, *(f"{value:.3f}" for value in means), shown, *of])
        header = ["", *ATTRIBUTES, "mean − no clusters", "speaker", "emotion", "length"]
        parts.append(
            f"## {corpus.name}: {corpus.epochs} epochs, {len(corpus.seeds)} seeds\n\n{table(header, rows)}"
        )
        rows = [
            [name, *(f"{statistics.mean(values):+.3f}" for values in by_epoch.values())]
            for name, by_epoch in numbers["cosines"].items()
        ]
        moments = [f"{epochs} epochs" for epochs in MOMENTS if epochs <= corpus.epochs]
        parts.append(table(["cosine of the gradients", *moments], rows))
    return "\n\n".join(parts)


def plot(results: dict[str, dict[str, Any]], path: Path) -> None:
    """One row of figures for each corpus, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        len(results), 3, figsize=(15, 4.8 * len(results)), squeeze=False, layout="constrained"
    )
    for row, (name, numbers) in zip(axes, results.items(), strict=True):
        names = [variant.name for variant in VARIANTS[1:]]
        changes, halves = zip(*(difference(numbers, key) for key in names), strict=True)
        places = range(len(names))[::-1]
        row[0].errorbar(changes, places, xerr=halves, fmt="o", capsize=3)
        row[0].axvline(0, color="grey")
        row[0].set_yticks(places, names)
        row[0].set_title(f"{name}: test CCC − no clusters")
        for key in (PLAIN.name, SEEING.name, RANDOM.name, "K-means, weight 0"):
            curve = np.mean(numbers["epsilon2"][key], axis=0)
            row[1].plot(range(1, len(curve) + 1), curve, label=key)
        row[1].set_title("ε² of clusters, unseen speakers")
        row[1].set_xlabel("epoch")
        row[1].legend(fontsize="small")
        for key, by_epoch in numbers["cosines"].items():
            row[2].plot(list(by_epoch), [statistics.mean(v) for v in by_epoch.values()], "o-", label=key)
        row[2].axhline(0, color="grey")
        row[2].set_title("cosine of cluster and emotion gradients")
        row[2].set_xlabel("epochs trained")
        row[2].legend(fontsize="small")
    figure.savefig(path)


def main() -> None:
    """Measure, print, write."""
    options = laboratory_parser(__doc__).parse_args()
    corpora = corpora_of(options)
    results = {corpus.name: measured(corpus) for corpus in corpora}
    text = page(results, corpora, command_of("diagnosis", corpora, options))
    print(text)
    if not options.dry:
        plot(results, write_results("diagnosis", f"# Diagnosis\n\n{text}", results).with_suffix(".svg"))


if __name__ == "__main__":
    main()

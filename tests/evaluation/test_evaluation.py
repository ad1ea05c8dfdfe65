"""Evaluations against the same numbers computed step by step, and against the run that made the model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from corpus_support import Spoken, make_store, mel_format, write_corpus
from model_support import small_model
from scipy import stats

from raydec.config import Config
from raydec.errors import UserError
from raydec.evaluation.result import SplitResult
from raydec.evaluation.scoring import evaluate
from raydec.evaluation.split_choice import choose_splits
from raydec.experiment import resolve, train_run
from raydec.features.chunk_set import normalizer_of
from raydec.features.chunking import chunk_utterance
from raydec.features.mel_front_end import MelFrontEnd
from raydec.features.normalization import FrameNormalizer
from raydec.features.store import FeatureStore
from raydec.model.directory import save_model
from raydec.model.outputs import Outputs
from raydec.model.trained import TrainedModel

SECONDS = (0.4, 0.9, 1.3, 2.4, 4.6)


def utterances(split: str, count: int, with_valence: bool, speakers: str) -> list[Spoken]:
    """Labels with gaps, durations in several bins, some speakers unknown (``?``)."""
    rng = np.random.default_rng(sum(split.encode()))
    return [
        Spoken(
            f"{split}{i}.wav",
            split,
            seconds=SECONDS[i % len(SECONDS)],
            arousal=None if i % 7 == 3 else float(rng.uniform(1, 7)),
            valence=float(rng.uniform(1, 7)) if with_valence and i % 5 else None,
            speaker=None if (name := speakers[i % len(speakers)]) == "?" else f"{split}-{name}",
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    folder = tmp_path_factory.mktemp("evaluation")
    spoken = [
        *utterances("train", 4, True, "ab"),
        *utterances("validation", 6, True, "ab"),
        *utterances("test1", 30, True, "aabbbcd?"),
        *utterances("test2", 8, False, "ab"),
        *[Spoken(f"more{i}.wav", "unlabeled", arousal=None, speaker=None) for i in range(2)],
    ]
    corpus = write_corpus(folder / "audio", spoken)
    classes = [None if i % 4 == 0 else ("angry", "sad", "calm")[i % 3] for i in range(len(spoken))]
    index = corpus.table.schema.get_field_index("emotion")
    table = corpus.table.set_column(index, "emotion", pa.array(classes, pa.string()))
    return make_store(dataclasses.replace(corpus, table=table), folder / "store")


@torch.no_grad()
def fitting_model(store: FeatureStore, **changes: object) -> TrainedModel:
    """A model with random weights whose scores and clusters vary over the utterances of this store."""
    normalizer = normalizer_of(store, mel_format(scale="log"))
    trained = small_model(feature_mean=normalizer.mean, feature_std=normalizer.std, **changes)
    chunks = torch.stack([first_chunk(store, row, normalizer) for row in range(0, len(store), 2)])
    networks = []
    for spec, network in trained.networks:
        scores = network(chunks).emotion.numpy().astype(np.float64)
        label_std = 1.5 / scores.std(0)
        label_mean = 4.0 - scores.mean(0) * label_std
        spec = dataclasses.replace(spec, label_mean=(*label_mean.tolist(),), label_std=(*label_std.tolist(),))
        networks.append((spec, network))
    if trained.centroids is not None:
        trained.centroids = networks[0][1].embed(chunks[:20:4]).numpy()
    trained.networks = networks
    return trained


def first_chunk(store: FeatureStore, row: int, normalizer: FrameNormalizer) -> torch.Tensor:
    frames = torch.from_numpy(store.frames(row).astype(np.float32))
    return chunk_utterance(normalizer.normalize(frames))[0]


@pytest.fixture(scope="module")
def model(store: FeatureStore) -> TrainedModel:
    return fitting_model(store, extra={"run": "tiny"})


@pytest.fixture(scope="module")
def model_dir(model: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    save_model(model, folder)
    return folder


@torch.no_grad()
def by_hand(trained: TrainedModel, store: FeatureStore, split: str) -> pd.DataFrame:
    """Every labeled utterance of a split with its scores and its cluster."""
    normalizer = FrameNormalizer(
        trained.feature_mean, trained.feature_std, trained.chunks.scale, trained.chunks.clip
    )
    table = store.utterances.to_pandas()
    table = table[(table["split"] == split) & table[list(trained.attributes)].notna().any(axis=1)].copy()
    for row in table.index:
        frames = torch.from_numpy(store.frames(row).astype(np.float32))
        chunks = chunk_utterance(normalizer.normalize(frames))
        for spec, network in trained.networks:
            scores = network(chunks).emotion.mean(0).numpy() * spec.label_std + spec.label_mean
            for name, score in zip(spec.attributes, scores, strict=True):
                table.loc[row, f"predicted_{name}"] = score
        embedding = trained.networks[0][1].embed(chunks).numpy()
        nearest = np.linalg.norm(embedding[:, None] - trained.centroids[None], axis=2).argmin(axis=1)
        table.loc[row, "cluster"] = np.bincount(nearest).argmax()
    return table


def ccc(x: np.ndarray, y: np.ndarray) -> float:
    return 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


@pytest.fixture(scope="module")
def expected(model: TrainedModel, store: FeatureStore) -> pd.DataFrame:
    table = by_hand(model, store, "test1")
    assert table["cluster"].nunique() > 2
    assert table["predicted_arousal"].std() > 0.3 and table["predicted_valence"].std() > 0.3
    return table


@pytest.fixture(scope="module")
def result(model_dir: Path, store: FeatureStore) -> SplitResult:
    evaluation = evaluate(model_dir, store.path, ["Test 1"], num_resamples=3000)
    (split,) = evaluation.splits
    assert (evaluation.model.run, evaluation.corpus, evaluation.synthetic) == ("tiny", "tiny", False)
    return split


def test_every_score_equals_the_steps_done_by_hand(result: SplitResult, expected: pd.DataFrame) -> None:
    table = expected
    assert (result.split, result.num_utterances, result.num_speakers) == ("test1", len(table), 4)
    assert result.duration_s == pytest.approx(table["duration_s"].sum())
    assert result.clusters_used == table["cluster"].nunique()
    # Dominance is predicted, but no utterance has its label.
    assert list(result.attributes) == ["arousal", "valence"]
    for name, found in result.attributes.items():
        labeled = table.dropna(subset=[name])
        x, y = labeled[f"predicted_{name}"].to_numpy(), labeled[name].to_numpy()
        assert found.estimate.num_utterances == len(labeled)
        assert found.estimate.ccc == pytest.approx(ccc(x, y), abs=1e-5)
        assert found.mean_error == pytest.approx((x - y).mean(), abs=1e-5)
        assert found.rmse == pytest.approx(np.sqrt(((x - y) ** 2).mean()), abs=1e-5)


def test_intervals_resample_speakers_and_lone_utterances(result: SplitResult, expected: pd.DataFrame) -> None:
    table = expected.dropna(subset=["arousal"])
    unknown = table["speaker"].isna()
    units = [group for _, group in table[~unknown].groupby("speaker")]
    units += [table.loc[[row]] for row in table[unknown].index]
    estimate = result.attributes["arousal"].estimate
    assert (estimate.unit, estimate.num_units) == ("speaker", len(units))
    rng, drawn = np.random.default_rng(5), []
    for _ in range(1500):
        sample = pd.concat([units[i] for i in rng.integers(len(units), size=len(units))])
        drawn.append(ccc(sample["predicted_arousal"].to_numpy(), sample["arousal"].to_numpy()))
    low, high = np.quantile(drawn, [0.025, 0.975])
    # Ends of such intervals vary by about 4% of their width.
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.12 * (high - low))


def test_cluster_dependency_agrees_with_scipy(result: SplitResult, expected: pd.DataFrame) -> None:
    for name, found in result.attributes.items():
        labeled = expected.dropna(subset=[name])
        values, clusters = labeled[name].to_numpy(), labeled["cluster"].to_numpy()

        def f_of(values: np.ndarray, clusters: np.ndarray = clusters) -> float:
            return stats.f_oneway(*(values[clusters == c] for c in np.unique(clusters))).statistic

        between = len(np.unique(clusters)) - 1
        f = f_of(values)
        assert found.dependency is not None
        eta_squared = f * between / (f * between + len(values) - between - 1)
        assert found.dependency.eta_squared == pytest.approx(eta_squared, abs=1e-9)
        # Within speakers, after their means are taken away.
        speakers = labeled["speaker"].fillna("?")
        residuals = labeled[name] - labeled.groupby(speakers)[name].transform("mean")
        rng = np.random.default_rng(1)
        observed = f_of(residuals.to_numpy())
        permuted = [
            residuals.groupby(speakers).transform(lambda group, rng=rng: rng.permutation(group)).to_numpy()
            for _ in range(300)
        ]
        at_least = np.mean([f_of(values) >= observed - 1e-9 for values in permuted])
        assert found.dependency.p_value == pytest.approx(at_least, abs=0.07)


def test_emotion_information_is_the_entropies_difference(result: SplitResult, expected: pd.DataFrame) -> None:
    known = expected.dropna(subset=["emotion"])
    joint = pd.crosstab(known["emotion"], known["cluster"]).to_numpy()
    entropies = [stats.entropy(joint.sum(1)), stats.entropy(joint.sum(0))]
    information = sum(entropies) - stats.entropy(joint.ravel())
    assert result.emotion is not None and result.emotion.num_utterances == len(known)
    assert result.emotion.mutual_information_nats == pytest.approx(information, abs=1e-9)
    assert result.emotion.normalized == pytest.approx(information / np.mean(entropies), abs=1e-9)


def test_breakdowns_equal_those_of_pandas(result: SplitResult, expected: pd.DataFrame) -> None:
    table = expected
    names = table["speaker"].fillna("unknown")
    bins = pd.cut(table["duration_s"], [0, 1, 2, 4, 6, 8, 11, np.inf], right=False)
    assert [group.key for group in result.speakers] == ["test1-a", "test1-b", "test1-c", "test1-d", None]
    assert [group.key for group in result.durations] == [(0, 1), (1, 2), (2, 4), (4, 6)]
    speakers = {"unknown" if group.key is None else group.key: group for group in result.speakers}
    durations = {group.key: group for group in result.durations}
    wanted = [(speakers, names), (durations, bins.map(lambda b: (b.left, b.right)).astype(object))]
    for found, key in wanted:
        for value, group in table.groupby(key, observed=True):
            assert found[value].num_utterances == len(group)
            for name in ("arousal", "valence"):
                labeled = group.dropna(subset=[name])
                score = found[value].scores[name]
                error = labeled[f"predicted_{name}"] - labeled[name]
                assert score.num_utterances == len(labeled)
                assert score.mean_error == pytest.approx(error.mean(), abs=1e-5)
                assert score.rmse == pytest.approx(np.sqrt((error**2).mean()), abs=1e-5)
                if len(labeled) > 1:
                    x, y = labeled[f"predicted_{name}"].to_numpy(), labeled[name].to_numpy()
                    assert score.ccc == pytest.approx(ccc(x, y), abs=1e-5)
                else:
                    assert score.ccc is None


def test_another_model_is_compared_on_the_same_utterances(
    model_dir: Path, store: FeatureStore, expected: pd.DataFrame, tmp_path: Path
) -> None:
    other = fitting_model(store)
    other.networks = other.networks[:1]
    spec, network = other.networks[0]
    with torch.no_grad():
        network.emotion_head.top.bias += 0.3 / spec.label_std[0]
    save_model(other, tmp_path / "other")
    table = expected.dropna(subset=["arousal"])
    label = table["arousal"].to_numpy()
    first = ccc(table["predicted_arousal"].to_numpy(), label)
    second = ccc(table["predicted_arousal"].to_numpy() + 0.3, label)
    forth, back = (
        evaluate(one, store.path, ["test1"], against=two, num_resamples=500)
        for one, two in [(model_dir, tmp_path / "other"), (tmp_path / "other", model_dir)]
    )
    there = forth.splits[0].attributes["arousal"].comparison
    here = back.splits[0].attributes["arousal"].comparison
    assert there is not None and here is not None
    assert there.ccc == pytest.approx(second, abs=1e-5)
    assert there.difference.difference == pytest.approx(first - second, abs=1e-5)
    assert here.difference.difference == pytest.approx(second - first, abs=1e-5)
    assert (there.difference.low, there.difference.high) == pytest.approx(
        (-here.difference.high, -here.difference.low), abs=1e-6
    )
    itself = evaluate(model_dir, store.path, ["test1"], against=model_dir, num_resamples=200)
    same = itself.splits[0].attributes["valence"].comparison
    assert same is not None and (same.difference.difference, same.difference.p_value) == (0.0, 1.0)


def test_numbers_depend_on_the_seed_and_not_on_other_splits(model_dir: Path, store: FeatureStore) -> None:
    both = evaluate(model_dir, store.path, num_resamples=200)
    assert [split.split for split in both.splits] == ["test1", "test2"]
    assert list(both.splits[1].attributes) == ["arousal"]
    alone = evaluate(model_dir, store.path, ["TEST2", "test2"], num_resamples=200)
    assert alone.splits == both.splits[1:]
    another = evaluate(model_dir, store.path, ["test2"], num_resamples=200, seed=1)
    first, second = both.splits[1].attributes["arousal"], another.splits[0].attributes["arousal"]
    assert first.estimate.ccc == second.estimate.ccc and first.dependency != second.dependency


def test_progress_counts_every_prediction(model_dir: Path, store: FeatureStore) -> None:
    seen: list[tuple[int, int]] = []
    evaluate(
        model_dir,
        store.path,
        against=model_dir,
        num_resamples=100,
        progress=lambda done, total: seen.append((done, total)),
    )
    totals = {total for _, total in seen}
    assert (
        len(totals) == 1
        and seen[-1][0] == totals.pop()
        and [d for d, _ in seen] == sorted(d for d, _ in seen)
    )


def test_splits_default_to_labeled_tests_then_validation(store: FeatureStore) -> None:
    assert choose_splits(store, Outputs(("arousal",))) == ("test1", "test2")
    assert choose_splits(store, Outputs(("valence",))) == ("test1",)
    assert choose_splits(store, Outputs(("arousal",)), ["Development", "TEST 2", "valid"]) == (
        "validation",
        "test2",
    )
    with pytest.raises(UserError, match="has no test or validation split with labels for dominance"):
        choose_splits(store, Outputs(("dominance",)))
    with pytest.raises(UserError, match=r"no split 'test3'; its splits are train, validation, test1, test2"):
        choose_splits(store, Outputs(("arousal",)), ["test3"])
    with pytest.raises(
        UserError, match=r"'test2' of .* \(valence\); labeled .*train \(arousal, valence, emotion\), .*"
    ):
        choose_splits(store, Outputs(("valence",)), ["test2"])
    with pytest.raises(UserError, match=r"'unlabeled' of .* has no labels"):
        choose_splits(store, Outputs(("arousal",)), ["Unlabeled"])


def test_models_that_do_not_fit_are_refused_by_name(
    model_dir: Path, store: FeatureStore, tmp_path: Path
) -> None:
    save_model(small_model(front_end=MelFrontEnd(hop_length=160)), tmp_path / "other_features")
    with pytest.raises(UserError, match="hop_length 256 instead of 160"):
        evaluate(tmp_path / "other_features", store.path)
    with pytest.raises(UserError, match=r"--against .*other_features: .*hop_length 256 instead of 160"):
        evaluate(model_dir, store.path, against=tmp_path / "other_features")
    dominance = small_model(centroids=False)
    dominance.networks = dominance.networks[1:]
    save_model(dominance, tmp_path / "dominance")
    with pytest.raises(UserError, match="has no test or validation split with labels for dominance"):
        evaluate(tmp_path / "dominance", store.path)
    arousal = small_model()
    arousal.networks = arousal.networks[:1]
    save_model(arousal, tmp_path / "arousal")
    with pytest.raises(UserError, match="there is nothing to compare"):
        evaluate(tmp_path / "arousal", store.path, against=tmp_path / "dominance")


def test_models_without_clusters_have_scores_all_the_same(store: FeatureStore, tmp_path: Path) -> None:
    save_model(small_model(centroids=False, model={"kind": "regressor"}), tmp_path / "model")
    (split,) = evaluate(tmp_path / "model", store.path, ["test2"], num_resamples=100).splits
    assert split.clusters_used is None and split.emotion is None
    assert split.attributes["arousal"].dependency is None


def test_notes_say_what_weakens_the_numbers(tmp_path: Path) -> None:
    save_model(small_model(resampler="kaiser"), tmp_path / "model")
    spoken = [
        Spoken("a.wav", "train", speaker="s1"),
        *(Spoken(f"t{i}.wav", "test", arousal=2.0 + i, speaker=f"s{i}") for i in range(3)),
        Spoken("v1.wav", "validation", speaker=None),
        Spoken("v2.wav", "validation", arousal=5.0, speaker=None),
    ]
    corpus = dataclasses.replace(write_corpus(tmp_path / "audio", spoken), synthetic=True)
    make_store(corpus, tmp_path / "store")
    evaluation = evaluate(tmp_path / "model", tmp_path / "store", ["test", "validation"], num_resamples=100)
    assert evaluation.synthetic
    test, validation = (" / ".join(split.notes) for split in evaluation.splits)
    assert "synthetic" in test and "3 speakers are few" in test and "1 of 3 speakers are in" in test
    assert "the model's own way is kaiser" in test
    assert "fewer than two speakers are known" in validation
    assert evaluation.splits[1].attributes["arousal"].estimate.unit == "utterance"


def test_a_trained_model_scores_what_its_run_wrote_down(store: FeatureStore, tmp_path: Path) -> None:
    """The evaluation gives the CCC of summary.json for the same model and splits."""
    config = Config.model_validate(
        {
            "name": "tiny",
            "output_dir": str(tmp_path),
            "data": {"store": str(store.path), "attributes": ["valence", "arousal"]},
            "model": {"channels": [4] * 7, "embedding_dim": 16},
            "training": {
                "epochs": 4,
                "batch_utterances": 4,
                "recipe": "modern",
                "schedule": "pooled",
                "learning_rate": 0.03,
            },
            "clustering": {"num_clusters": 3},
            "ray": {"num_workers": 0, "use_gpu": False},
        }
    )
    run = train_run(resolve(config))
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["ccc"].keys() == {"validation", "test1", "test2"}
    assert (
        min(abs(value) for split in ("validation", "test1") for value in summary["ccc"][split].values())
        > 1e-3
    )
    evaluation = evaluate(run.folder / "model", store.path, list(summary["ccc"]), num_resamples=100)
    for split in evaluation.splits:
        assert split.num_utterances == summary["num_utterances"][split.split]
        found = {name: result.estimate.ccc for name, result in split.attributes.items()}
        wanted = {name: summary["ccc"][split.split][name] for name in found}
        assert found == pytest.approx(wanted, abs=1e-6), summary
    assert evaluation.model.run == "tiny"

"""Normalisation by speaker: against a loop over files, in training, evaluation, reports and prediction."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus_support import make_store, many, write_corpus
from report_support import TINY

from raydec.config import Config, load_config
from raydec.console.terminal import run_entry_point
from raydec.errors import UserError
from raydec.evaluation.scoring import evaluate
from raydec.experiment import train_run
from raydec.features.store import FeatureStore
from raydec.features.store_view import view
from raydec.inference.audio_inputs import find_inputs
from raydec.inference.prediction import load
from raydec.learning.data import select_data
from raydec.pages.finished_run import open_run
from raydec.predict import main as predict_main

SCALED = "features.scale=log"
ATTRIBUTE = "data.attributes=[arousal]"
CENTRED = "features.speaker_normalization=mean"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Utterances of known speakers in ``audio``, one of an unknown speaker, and their ``store``."""
    folder = tmp_path_factory.mktemp("speakers")
    utterances = [spoken for name in "ab" for spoken in many(4, "train", name, speaker=name)]
    utterances += [*many(2, "train", "n", speaker=None), *many(3, "unlabeled", "b-more", speaker="b")]
    utterances += [spoken for name in "vw" for spoken in many(3, "validation", name, speaker=name)]
    # Speaker a is tested too: the mean of another split must not be used.
    utterances += [*many(3, "test", "t", speaker="t"), *many(3, "test", "a-test", speaker="a")]
    make_store(write_corpus(folder / "audio", utterances), folder / "store")
    return folder


def settings(folder: Path, *overrides: str) -> Config:
    return load_config(
        None, [*TINY, f"data.store={folder / 'store'}", ATTRIBUTE, SCALED, CENTRED, *overrides]
    )


def log_frames(store: FeatureStore, row: int) -> np.ndarray:
    return np.log(store.frames(row).astype(np.float64) + 1e-6)


def means(store: FeatureStore, rows: list[int]) -> dict[str, np.ndarray]:
    speakers = store.utterances["speaker"].to_pylist()
    found: dict[str, list[np.ndarray]] = {}
    for row in rows:
        if speakers[row] is not None:
            found.setdefault(speakers[row], []).append(log_frames(store, row).mean(axis=0))
    return {speaker: np.mean(values, axis=0) for speaker, values in found.items()}


@pytest.mark.parametrize("pool", [0, 3])
def test_chunks_are_centred_by_the_utterances_that_are_used(folder: Path, pool: int) -> None:
    store = FeatureStore.open(folder / "store")
    data = select_data(settings(folder, f"data.unlabeled_utterances={pool}"), store)
    speakers, splits = (store.utterances[name].to_pylist() for name in ("speaker", "split"))
    labeled = [row for row, split in enumerate(splits) if split == "train"]
    used = labeled + [row for row, split in enumerate(splits) if pool and split == "unlabeled"]
    center = np.concatenate([log_frames(store, row) for row in labeled]).mean(axis=0)
    of_training = means(store, used)

    def moved(row: int, of: dict[str, np.ndarray]) -> np.ndarray:
        return log_frames(store, row) - of.get(speakers[row], center)

    std = np.sqrt((np.concatenate([moved(row, of_training) for row in labeled]) ** 2).mean(axis=0))
    of_test = means(store, [row for row, split in enumerate(splits) if split == "test"])
    clip = data.form.clip
    for chunk_set, of in ((data.labeled, of_training), (data.tests["test"], of_test)):
        first_chunks = np.arange(chunk_set.num_utterances) * chunk_set.num_chunks
        found = chunk_set.gather(first_chunks).numpy()
        held = chunk_set.spread_out(len(chunk_set))
        held.hold_on("cpu")
        assert np.array_equal(held.gather(first_chunks).numpy(), found)
        for chunk, row in zip(found, chunk_set.rows.tolist(), strict=True):
            expected = np.clip(moved(row, of) / std, -clip, clip)
            length = min(len(expected), len(chunk))
            np.testing.assert_allclose(chunk[:length], expected[:length], atol=2e-4)
    assert (np.abs(of_training["a"] - of_test["a"]) > 0.05).any(), "the comparison shows nothing"


def test_off_is_as_before(folder: Path) -> None:
    store = FeatureStore.open(folder / "store")
    data = select_data(settings(folder, "features.speaker_normalization=none"), store)
    assert data.labeled.offsets is None
    mean, std = store.frame_statistics("log")
    assert np.array_equal(data.normalizer.mean, mean) and np.array_equal(data.normalizer.std, std)


def test_hidden_utterances_have_no_part_in_a_mean(folder: Path) -> None:
    config = settings(folder, "data.labeled_utterances=4", "data.unlabeled_utterances=0")
    store = view(FeatureStore.open(folder / "store"), config.data)
    labeled = select_data(config, store).labeled
    assert labeled.num_utterances == 4 and labeled.offsets is not None
    expected = means(store, labeled.rows.tolist())
    for place, speaker in enumerate(labeled.speakers()):
        offset = labeled.offsets.at(np.array([place]))[0, 0]
        wanted = expected[speaker] - labeled.normalizer.mean if speaker else np.zeros_like(offset)
        np.testing.assert_allclose(offset, wanted, atol=1e-5)


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    config = settings(folder, "training.epochs=2", f"output_dir={runs}", "name=centred", "ray.num_workers=0")
    return train_run(config).folder


def summary(run: Path) -> dict[str, float]:
    return json.loads((run / "summary.json").read_text())["ccc"]["test"]


def test_evaluation_and_report_repeat_the_scores_of_training(run: Path, folder: Path) -> None:
    (split,) = evaluate(run / "model", folder / "store", ["test"]).splits
    assert split.attributes["arousal"].estimate.ccc == pytest.approx(summary(run)["arousal"], abs=1e-6)
    assert open_run(run).trained.chunks.speaker_normalization == "mean"
    assert "normalised by speaker" in (run / "model" / "README.md").read_text()


def test_scores_of_unknown_speakers_are_warned_of(
    run: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluate(run / "model", folder / "store", ["test"])
    assert not caplog.messages
    evaluate(run / "model", folder / "store", ["train"])
    assert "2 of 10 utterances have no speaker" in caplog.text


def test_a_list_with_speakers_is_predicted_like_the_store(
    run: Path, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = FeatureStore.open(folder / "store")
    speakers, names, splits = (
        store.utterances[name].to_pylist() for name in ("speaker", "utterance_id", "split")
    )
    rows = np.array([row for row, split in enumerate(splits) if split == "validation"])
    table = tmp_path / "list.csv"
    lines = [f"{folder / 'audio' / names[row]},{speakers[row]}" for row in rows]
    table.write_text("\n".join(["file,speaker", *lines, f"{folder / 'audio' / names[0]},"]) + "\n")
    out = tmp_path / "out.csv"
    command = [str(run / "model"), str(table), "--out", str(out)]
    assert run_entry_point(predict_main, [*command, "--speaker-means", str(folder / "store")]) == 0
    with open(out) as file:
        found = [float(row["arousal"]) for row in csv.DictReader(file)]
    predictor = load(run / "model")
    expected = predictor.predict_store(store, rows).scores[:, 0]
    np.testing.assert_allclose(found[:-1], expected, atol=2e-3)
    frames = [torch.from_numpy(store.frames(0).astype(np.float32))]
    unknown = predictor.predict_frames(frames).scores[0, 0]
    assert found[-1] == pytest.approx(unknown, abs=2e-3)
    # The comparison shows something: without means the scores are others, and the command says so.
    assert not caplog.messages
    assert run_entry_point(predict_main, [*command[:-1], str(tmp_path / "plain.csv")]) == 0
    assert "normalises by speaker, and no speaker is known" in caplog.text
    with open(tmp_path / "plain.csv") as file:
        plain = [float(row["arousal"]) for row in csv.DictReader(file)]
    assert np.abs(np.array(plain[:-1]) - expected).max() > 0.01


def test_lists_keep_the_speaker_of_each_segment(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("file,start,end,speaker\na.wav,0,1,x\na.wav,1,2,y\nb.wav,0,1,\n")
    first, second = find_inputs([tmp_path / "list.csv"])
    assert first.speakers == ("x", "y") and second.speakers == ()
    assert type(first).of(json.loads(json.dumps(first))) == first


@pytest.mark.parametrize(
    "speaker, model_override, problem",
    [
        ("stranger", CENTRED, "that store has none of the 1 speakers"),
        ("", CENTRED, "no list names a speaker"),
        ("v", "features.speaker_normalization=none", "does not normalise by speaker"),
    ],
)
def test_means_that_help_nothing_are_refused(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    speaker: str,
    model_override: str,
    problem: str,
) -> None:
    config = settings(
        folder, "training.epochs=1", f"output_dir={tmp_path}", "name=r", "ray.num_workers=0", model_override
    )
    model = train_run(config).folder / "model"
    (tmp_path / "list.csv").write_text(f"file,speaker\n{folder / 'audio' / 'v000.wav'},{speaker}\n")
    command = [str(model), str(tmp_path / "list.csv"), "--out", str(tmp_path / "out.csv")]
    assert run_entry_point(predict_main, [*command, "--speaker-means", str(folder / "store")]) == 2
    message = capsys.readouterr().err
    assert problem in " ".join(message.split()) and not (tmp_path / "out.csv").exists()


def test_a_store_without_speakers_is_refused(tmp_path: Path) -> None:
    utterances = [*many(4, "train", "u", speaker=None), *many(3, "validation", "v", speaker="v")]
    make_store(write_corpus(tmp_path / "audio", utterances), tmp_path / "store")
    with pytest.raises(
        UserError, match=r"speaker_normalization=mean: no training utterance of .* has a speaker"
    ):
        select_data(settings(tmp_path), FeatureStore.open(tmp_path / "store"))


def test_unknown_speakers_are_warned_of(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    select_data(settings(folder), FeatureStore.open(folder / "store"))
    assert "2 of 13 training utterances have no speaker" in " ".join(caplog.messages)


def test_a_model_to_start_from_must_be_normalised_in_the_same_way(run: Path, folder: Path) -> None:
    store = FeatureStore.open(folder / "store")
    given = f"model.init={run / 'model'}"
    with pytest.raises(UserError, match=r"features\.speaker_normalization=mean, not none"):
        select_data(settings(folder, "features.speaker_normalization=none", given), store)
    kept = select_data(settings(folder, given), store).normalizer
    assert np.array_equal(kept.mean, load(run / "model").trained.feature_mean)

"""The demo corpus: same bytes every time, honest about being synthetic, and learnable."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile

from raydec.corpus.demo import LABELS, MARKER, is_demo_corpus, write_demo_corpus
from raydec.corpus.synthesis import SAMPLE_RATE
from raydec.errors import UserError

SMALL = {"num_train": 8, "num_validation": 3, "num_test": 3, "num_unlabeled": 4}
ATTRIBUTE_COLUMNS = {"arousal": "EmoAct", "dominance": "EmoDom", "valence": "EmoVal"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_corpus(tmp_path_factory.mktemp("demo") / "corpus")


def digest(folder: Path) -> str:
    """One hash over every name and every byte."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def label_rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / LABELS, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_two_builds_have_the_same_bytes_also_in_another_process(tmp_path: Path) -> None:
    here = write_demo_corpus(tmp_path / "a", **SMALL)
    code = f"from raydec.corpus.demo import *; write_demo_corpus(Path({str(tmp_path / 'b')!r}), **{SMALL!r})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert digest(here) == digest(tmp_path / "b")


def test_another_seed_gives_another_corpus(tmp_path: Path) -> None:
    one, two = (write_demo_corpus(tmp_path / str(seed), seed=seed, **SMALL) for seed in (0, 1))
    names = [path.name for path in sorted((one / "Audios").iterdir())]
    assert names == [path.name for path in sorted((two / "Audios").iterdir())]
    assert all((one / "Audios" / n).read_bytes() != (two / "Audios" / n).read_bytes() for n in names)


def test_a_larger_corpus_keeps_the_utterances_of_a_smaller_one(corpus: Path, tmp_path: Path) -> None:
    small = write_demo_corpus(tmp_path / "small", **SMALL)
    for path in (*small.glob("Audios/*"), *small.glob("Unlabeled/*")):
        assert path.read_bytes() == (corpus / path.relative_to(small)).read_bytes()
    assert set(map(tuple, map(dict.items, label_rows(small)))) <= set(
        map(tuple, map(dict.items, label_rows(corpus)))
    )


def test_sizes_splits_and_layout(corpus: Path) -> None:
    rows = label_rows(corpus)
    counts = {
        split: sum(row["Split_Set"] == split for row in rows) for split in ("Train", "Validation", "Test")
    }
    assert counts == {"Train": 160, "Validation": 40, "Test": 60}
    assert {path.name for path in (corpus / "Audios").iterdir()} == {row["FileName"] for row in rows}
    assert len(list((corpus / "Unlabeled").iterdir())) == 48


def test_no_speaker_is_in_two_splits(corpus: Path) -> None:
    speakers: dict[str, set[str]] = {"Unlabeled": set()}
    for row in label_rows(corpus):
        speakers.setdefault(row["Split_Set"], set()).add(row["SpkrID"])
    speakers["Unlabeled"] = {str(int(path.name.split("_")[1])) for path in (corpus / "Unlabeled").iterdir()}
    assert all(len(members) >= 5 for members in speakers.values())
    assert all(not (one & other) for one, other in combinations(speakers.values(), 2))


def test_audio_is_16_khz_pcm16_of_0_8_to_8_seconds_and_never_clips(corpus: Path) -> None:
    durations_s = []
    for path in (*corpus.glob("Audios/*.wav"), *corpus.glob("Unlabeled/*.wav")):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (SAMPLE_RATE, 1, "PCM_16")
        durations_s.append(info.duration)
        samples, _ = soundfile.read(path, dtype="int16")
        peak = int(np.abs(samples.astype(np.int32)).max())
        assert 0.15 * 32768 < peak < 32767
    assert 0.8 <= min(durations_s) < 1.2
    assert 5.0 < max(durations_s) <= 8.0


def test_labels_span_the_scale_and_go_together_as_in_real_corpora(corpus: Path) -> None:
    rows = label_rows(corpus)
    labels = {
        name: np.array([float(row[column]) for row in rows]) for name, column in ATTRIBUTE_COLUMNS.items()
    }
    for values in labels.values():
        assert 1.0 <= values.min() < 2.5
        assert 5.5 < values.max() <= 7.0
        assert abs(values.mean() - 4.0) < 0.25
    assert 0.45 < np.corrcoef(labels["arousal"], labels["dominance"])[0, 1] < 0.75
    assert abs(np.corrcoef(labels["arousal"], labels["valence"])[0, 1]) < 0.3
    assert {row["EmoClass"] for row in rows} <= set("ASHUFDCNOX")
    assert len({row["EmoClass"] for row in rows}) >= 4


def test_it_says_that_it_is_synthetic(corpus: Path) -> None:
    assert (corpus / "README.txt").read_text().startswith("SYNTHETIC")
    assert json.loads((corpus / MARKER).read_text())["synthetic"] is True
    assert is_demo_corpus(corpus)


def test_a_complete_corpus_is_left_alone(tmp_path: Path) -> None:
    folder = write_demo_corpus(tmp_path / "demo", **SMALL)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    write_demo_corpus(folder, **SMALL)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def _drop_a_file(folder: Path) -> None:
    next((folder / "Audios").iterdir()).unlink()


def _cut_a_file(folder: Path) -> None:
    path = next((folder / "Unlabeled").iterdir())
    path.write_bytes(path.read_bytes()[:100])


def _drop_the_marker(folder: Path) -> None:
    (folder / MARKER).unlink()


def _spoil_the_marker(folder: Path) -> None:
    (folder / MARKER).write_text('{"version": 1')


@pytest.mark.parametrize("damage", [_drop_a_file, _cut_a_file, _drop_the_marker, _spoil_the_marker])
def test_an_incomplete_corpus_is_made_anew(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = write_demo_corpus(tmp_path / "demo", **SMALL)
    whole = digest(folder)
    damage(folder)
    write_demo_corpus(folder, **SMALL)
    assert digest(folder) == whole


def test_other_sizes_replace_the_corpus_and_leave_no_scraps(tmp_path: Path) -> None:
    folder = write_demo_corpus(tmp_path / "demo", **SMALL)
    write_demo_corpus(folder, **{**SMALL, "num_train": 2})
    assert len(list((folder / "Audios").iterdir())) == 2 + 3 + 3
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_files_of_others_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="not a demo corpus; name a new or an empty folder"):
        write_demo_corpus(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_cannot_be_made_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="-1 utterances for Train"):
        write_demo_corpus(tmp_path / "demo", num_train=-1)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        write_demo_corpus(tmp_path / "file", **SMALL)
    with pytest.raises(UserError, match="cannot write the demo corpus"):
        write_demo_corpus(tmp_path / "file" / "demo", **SMALL)


def test_a_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("raydec.corpus.demo._write_wav", full_disk)
    with pytest.raises(UserError, match="No space left on device"):
        write_demo_corpus(tmp_path / "demo", **SMALL)
    assert list(tmp_path.iterdir()) == []


def ridge_test_ccc(rows: list[dict[str, str]], features: np.ndarray, attribute: str) -> float:
    """CCC on the test speakers of a ridge regression fitted on the training speakers."""
    target = np.array([float(row[ATTRIBUTE_COLUMNS[attribute]]) for row in rows])
    train = np.array([row["Split_Set"] == "Train" for row in rows])
    test = np.array([row["Split_Set"] == "Test" for row in rows])
    features = (features - features[train].mean(axis=0)) / features[train].std(axis=0)
    gram = features[train].T @ features[train] + 10.0 * np.eye(features.shape[1])
    weights = np.linalg.solve(gram, features[train].T @ (target[train] - target[train].mean()))
    return ccc(features[test] @ weights + target[train].mean(), target[test])


def ccc(x: np.ndarray, y: np.ndarray) -> float:
    return float(
        2 * np.mean((x - x.mean()) * (y - y.mean())) / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    )


def utterance_features(path: Path) -> np.ndarray:
    """A dozen functionals: spectral balance, energy contrast, pitch level, range, slope and steadiness."""
    samples, _ = soundfile.read(path)
    samples = samples / np.abs(samples).max()
    frames = np.lib.stride_tricks.sliding_window_view(samples, 640)[::256] * np.hanning(640)
    power = np.abs(np.fft.rfft(frames, 1024)) ** 2
    energy_db = 10 * np.log10(power.sum(axis=1) + 1e-6)
    loud = energy_db > energy_db.max() - 25
    smooth_db = np.convolve(energy_db, np.hanning(11), "valid")
    edges = np.array([2, 8, 16, 32, 64, 96, 128, 192, 320, 512])
    bands = np.log(np.add.reduceat(power[loud], edges[:-1], axis=1) + 1e-9)
    correlation = np.fft.irfft(power[loud])[:, :400]
    periodicity = correlation[:, 32:230] / correlation[:, :1]
    octaves = -np.log2(32 + periodicity.argmax(axis=1))
    place = np.linspace(-0.5, 0.5, len(octaves))
    slope = np.polyfit(place, octaves, 1)[0]
    functionals = [
        *(bands - bands.mean(axis=1, keepdims=True)).mean(axis=0)[1:],
        np.median(octaves),
        *np.subtract(*np.percentile(octaves, [[80], [20]])),
        slope,
        periodicity.max(axis=1).mean(),
        energy_db[loud].std(),
        loud.mean(),
        np.abs(np.diff(np.sign(np.diff(smooth_db)))).mean(),
    ]
    return np.array(functionals)


def test_simple_features_predict_arousal_well_and_valence_less(corpus: Path) -> None:
    rows = label_rows(corpus)
    features = np.stack([utterance_features(corpus / "Audios" / row["FileName"]) for row in rows])
    scores = {attribute: ridge_test_ccc(rows, features, attribute) for attribute in ATTRIBUTE_COLUMNS}
    assert scores["arousal"] >= 0.7
    assert 0.2 < scores["valence"] < scores["arousal"] - 0.15
    assert scores["dominance"] > 0.3

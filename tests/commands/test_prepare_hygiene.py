"""Preparing real-world dirt, in this process: nothing crashes, what is left out is named with its reason."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpus_support import many, voice, write_corpus

import raydec.features.shards as shards
from raydec.console.terminal import run_entry_point
from raydec.features.mel_front_end import MelFrontEnd
from raydec.features.store import FeatureStore
from raydec.preparation import prepare_store
from raydec.prepare import main

RATE = 16_000
HEADER = ("FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender", "Split_Set")


class DirtyCorpus:
    """A corpus in MSP-Podcast layout with one of everything that goes wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.audio = folder / "Audios"
        self.audio.mkdir(parents=True)
        (folder / "Labels").mkdir()
        self.rows: list[tuple[str, ...]] = []

    def row(self, name: str, split: str = "Train", arousal: str = "4.2", valence: str = "3.1") -> None:
        speaker = {"Train": "1", "Development": "2"}.get(split, "3")
        self.rows.append((name, "N", arousal, valence, "4.0", speaker, "Male", split))

    def wav(self, name: str, samples: np.ndarray, rate: int = RATE, subtype: str = "PCM_16") -> None:
        soundfile.write(self.audio / name, samples, rate, subtype=subtype, format="WAV")
        self.row(name)

    def raw(self, name: str, content: bytes) -> None:
        (self.audio / name).write_bytes(content)
        self.row(name)

    def write_labels(self) -> None:
        lines = [";".join(row) for row in (HEADER, *self.rows)]
        content = b"\xef\xbb\xbf" + ("\r\n".join(lines) + "\r\n").encode()
        (self.folder / "Labels" / "labels_consensus.csv").write_bytes(content)


def fill(corpus: DirtyCorpus) -> None:
    for number in range(4):
        corpus.wav(f"good-{number}.wav", voice(number, 1.0))
    for split in ("Development", "Test1"):
        soundfile.write(corpus.audio / f"{split}.wav", voice(len(split), 1.0), RATE)
        corpus.row(f"{split}.wav", split)
    whole = (corpus.audio / "good-0.wav").read_bytes()
    corpus.raw("empty.wav", b"")
    corpus.raw("truncated-header.wav", whole[:30])
    corpus.raw("garbage.wav", np.random.default_rng(0).bytes(5000))
    corpus.raw("lfs.wav", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n")
    corpus.wav("nan.wav", np.where(np.arange(8000) == 7, np.nan, voice(5, 0.5)), subtype="FLOAT")
    corpus.wav("inf.wav", np.where(np.arange(8000) == 7, np.inf, voice(5, 0.5)), subtype="FLOAT")
    corpus.wav("1e29.wav", np.where(np.arange(8000) == 7, 1e29, voice(5, 0.5)), subtype="FLOAT")
    corpus.wav("silence.wav", np.zeros(RATE))
    corpus.wav("short.wav", voice(6, 0.05))
    corpus.wav("five-minutes.wav", np.tile(voice(7, 1.0), 300))
    corpus.wav("stereo.wav", np.stack([voice(8, 1.0, 44_100)] * 2, axis=1), 44_100, "PCM_24")
    corpus.wav("mu-law.wav", voice(9, 1.0, 8_000), 8_000, "ULAW")
    corpus.wav("anti-phase.wav", np.stack([voice(10, 1.0), -voice(10, 1.0)], axis=1))
    corpus.wav("größe mit leer.wav", voice(11, 1.0))
    corpus.raw("cut-short.wav", whole[: len(whole) // 2])
    corpus.row("row-without-file.wav")
    soundfile.write(corpus.audio / "file-without-row.wav", voice(12, 0.5), RATE)
    for name, arousal in (("below-range.wav", "0.5"), ("above-range.wav", "9")):
        soundfile.write(corpus.audio / name, voice(13, 0.5), RATE)
        corpus.row(name, arousal=arousal)
    soundfile.write(corpus.audio / "twice.wav", voice(14, 0.5), RATE)
    corpus.row("twice.wav")
    corpus.row("twice.wav", arousal="6.0")
    corpus.write_labels()


SKIPPED = {
    "empty.wav": "empty",
    "truncated-header.wav": "cannot be decoded",
    "garbage.wav": "cannot be decoded",
    "lfs.wav": "Git LFS pointer",
    "nan.wav": "1 of 8000 samples are NaN or infinite",
    "inf.wav": "1 of 8000 samples are NaN or infinite",
    "1e29.wav": "peak of 1e+29",
    "silence.wav": "silent",
    "row-without-file.wav": "",
    "file-without-row.wav": "label",
    "below-range.wav": "0.5",
    "above-range.wav": "9",
    "twice.wav": "",
}
KEPT = {
    *(f"good-{number}.wav" for number in range(4)),
    "Development.wav",
    "Test1.wav",
    "short.wav",
    "five-minutes.wav",
    "stereo.wav",
    "mu-law.wav",
    "anti-phase.wav",
    "größe mit leer.wav",
    "cut-short.wav",
}


def skipped_reasons(store: Path) -> dict[str, str]:
    with open(store / "skipped.csv", newline="", encoding="utf-8") as file:
        return {Path(row["file"]).name: row["reason"] for row in csv.DictReader(file)}


def prepare(*arguments: str | Path) -> int:
    return run_entry_point(main, [*map(str, arguments), "--workers", "0"])


def test_every_kind_of_dirt_is_handled_or_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = DirtyCorpus(tmp_path / "corpus")
    fill(corpus)
    store_dir = tmp_path / "store"
    assert prepare(corpus.folder, store_dir) == 0
    reasons = skipped_reasons(store_dir)
    assert set(reasons) == set(SKIPPED)
    for name, expected in SKIPPED.items():
        assert expected in reasons[name] and reasons[name], (name, reasons[name])
    store = FeatureStore.open(store_dir)
    store.verify()
    stored = [Path(path).name for path in store.utterances["path"].to_pylist()]
    assert set(stored) - {"twice.wav"} == KEPT
    assert store.splits == ("train", "validation", "test1")
    frames = dict(zip(stored, store.utterances["num_frames"].to_pylist(), strict=True))
    assert frames["five-minutes.wav"] == 1 + 300 * RATE // 256
    assert frames["stereo.wav"] == frames["mu-law.wav"] == frames["good-0.wav"] == 63
    assert frames["short.wav"] == 4
    assert frames["cut-short.wav"] in (31, 32)
    for row in range(len(store)):
        assert np.isfinite(store.frames(row)).all() and store.frames(row).any()
    printed = capsys.readouterr().out
    assert "2 × 1 of 8000 samples are NaN or infinite: " in printed
    assert "cut short: 50% of the promised samples are there" in printed
    assert "the channels cancel each other" in printed
    assert str(store_dir / "skipped.csv") in printed


def test_a_corpus_of_nothing_usable_is_a_users_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = DirtyCorpus(tmp_path / "corpus")
    corpus.raw("empty.wav", b"")
    corpus.wav("silence.wav", np.zeros(RATE))
    corpus.write_labels()
    assert prepare(corpus.folder, tmp_path / "store") == 2
    assert "no usable audio in corpus corpus: 2" in capsys.readouterr().err
    assert set(skipped_reasons(tmp_path / "store")) == {"empty.wav", "silence.wav"}


def clean_corpus(folder: Path, count: int = 3) -> DirtyCorpus:
    corpus = DirtyCorpus(folder)
    for number in range(count):
        corpus.wav(f"{number}.wav", voice(number, 0.5))
    corpus.write_labels()
    return corpus


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_finished_store_of_an_unchanged_corpus_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = clean_corpus(tmp_path / "corpus")
    store = tmp_path / "store"
    assert prepare(corpus.folder, store) == 0
    before = times(store)
    capsys.readouterr()
    assert prepare(corpus.folder, store) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert times(store) == before
    assert prepare(corpus.folder, store, "--restart") == 0
    assert times(store) != before


@pytest.mark.parametrize("change", ["label", "audio", "row", "unlabeled"])
def test_a_finished_store_of_a_changed_corpus_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    corpus = clean_corpus(tmp_path / "corpus")
    store = tmp_path / "store"
    assert prepare(corpus.folder, store) == 0
    before = times(store)
    more: Sequence[str | Path] = ()
    if change == "label":
        corpus.rows[0] = (*corpus.rows[0][:2], "6.5", *corpus.rows[0][3:])
    elif change == "audio":
        soundfile.write(corpus.audio / "1.wav", voice(99, 0.5), RATE)
        os.utime(corpus.audio / "1.wav", ns=(1, 1))
    elif change == "row":
        corpus.wav("new.wav", voice(5, 0.5))
    else:
        (tmp_path / "pool").mkdir()
        soundfile.write(tmp_path / "pool" / "x.wav", voice(98, 0.5), RATE)
        more = ("--unlabeled", tmp_path / "pool")
    corpus.write_labels()
    assert prepare(corpus.folder, store, *more) == 2
    expected = {
        "label": "its labels, speakers or splits have changed",
        "audio": "its audio files have changed",
        "row": "it had 3 usable utterances, now it has 4",
        "unlabeled": "it had 3 usable utterances, now it has 4",
    }[change]
    message = capsys.readouterr().err
    assert expected in message and "--restart" in message
    assert times(store) == before
    assert prepare(corpus.folder, store, *more, "--restart") == 0
    assert len(FeatureStore.open(store)) == (3 if change in ("label", "audio") else 4)


def test_a_store_of_other_features_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "audio", many(3))
    prepare_store(corpus, tmp_path / "store", num_workers=0, quiet=True, front_end=MelFrontEnd(n_mels=64))
    source = clean_corpus(tmp_path / "corpus")
    assert prepare(source.folder, tmp_path / "store") == 2
    assert "n_mels 64 instead of 128" in capsys.readouterr().err


def test_an_interrupted_run_keeps_its_shards_and_decodes_them_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = clean_corpus(tmp_path / "corpus", count=40)
    store = tmp_path / "store"
    decoded: list[str] = []
    decode = shards.measure_audio

    def interrupted(path: str, *arguments: object) -> object:
        decoded.append(path)
        if len(decoded) == 20:
            raise KeyboardInterrupt
        return decode(path, *arguments)

    monkeypatch.setattr(shards, "measure_audio", interrupted)
    assert prepare(corpus.folder, store) == 130
    assert "interrupted; finished work is kept" in capsys.readouterr().err
    assert sorted(times(store)) == ["frames-00000.arrow", "frames-00000.json"]
    finished = times(store)["frames-00000.arrow"]
    decoded.clear()
    decoded.extend(["not again"] * 20)
    assert prepare(corpus.folder, store) == 0
    assert len(decoded) == 20 + 24
    assert times(store)["frames-00000.arrow"] == finished
    assert prepare(corpus.folder, tmp_path / "straight") == 0
    for path in (tmp_path / "straight").iterdir():
        assert path.read_bytes() == (store / path.name).read_bytes(), path.name


def test_a_smaller_plan_leaves_no_stale_frames(tmp_path: Path) -> None:
    corpus = clean_corpus(tmp_path / "corpus", count=20)
    assert prepare(corpus.folder, tmp_path / "store") == 0
    (tmp_path / "store" / "store.json").unlink()
    del corpus.rows[10:]
    corpus.write_labels()
    for number in range(10, 20):
        (corpus.audio / f"{number}.wav").unlink()
    assert prepare(corpus.folder, tmp_path / "store") == 0
    assert sorted(path.name for path in (tmp_path / "store").glob("frames*")) == ["frames-00000.arrow"]


def test_a_full_disk_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = clean_corpus(tmp_path / "corpus")

    class FullDisk:
        def __init__(self, *_: object) -> None:
            raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "_OpenShard", FullDisk)
        assert prepare(corpus.folder, tmp_path / "store") == 2
    assert f"no space left in {tmp_path / 'store'}" in capsys.readouterr().err


def test_the_corpus_folder_itself_is_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = clean_corpus(tmp_path / "corpus")
    before = shutil.disk_usage(tmp_path), sorted(corpus.folder.rglob("*"))
    assert prepare(corpus.folder, corpus.folder, "--restart") == 2
    assert "do not belong to a feature store: Audios, Labels" in capsys.readouterr().err
    assert sorted(corpus.folder.rglob("*")) == before[1]


def loaded_modules(code: str, *arguments: str | Path) -> set[str]:
    code = f"import sys\n{code}\nprint('\\n' + ' '.join({{name.split('.')[0] for name in sys.modules}}))"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_help_loads_neither_torch_nor_ray() -> None:
    code = "from raydec.prepare import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert not {"torch", "ray", "pyarrow", "soundfile"} & loaded_modules(code)


def test_preparing_in_this_process_does_not_load_ray(tmp_path: Path) -> None:
    corpus = clean_corpus(tmp_path / "corpus")
    code = "from raydec.prepare import main\nmain(sys.argv[1:])"
    loaded = loaded_modules(code, corpus.folder, tmp_path / "store", "--workers", "0")
    assert "torch" in loaded and "ray" not in loaded

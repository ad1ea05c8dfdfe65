"""Bare folders and pools of unlabeled speech."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raydec.corpus.audio_files import AUDIO_EXTENSIONS, list_audio
from raydec.corpus.demo import write_demo_corpus
from raydec.corpus.readers import read_corpus
from raydec.corpus.table import Skipped
from raydec.errors import UserError


def _touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_a_bare_folder_is_an_unlabeled_pool_with_relative_paths_as_ids(tmp_path: Path) -> None:
    names = [f"{i:02d}/clip{extension}" for i, extension in enumerate((*AUDIO_EXTENSIONS, ".WAV", ".Mp3"))]
    folder = _touch(tmp_path / "pool", *names, "x/clip.wav", "y/z/clip.wav", "notes.txt", "list.wav.bak",
                    "._a.wav", ".hidden/a.wav", ".DS_Store", "x/._clip.wav")  # fmt: skip
    corpus = read_corpus(folder)
    assert corpus.format == "folder" and corpus.skipped == () and corpus.warnings == ()
    expected = sorted([*names, "x/clip.wav", "y/z/clip.wav"])
    assert corpus.table["utterance_id"].to_pylist() == expected
    assert corpus.table["path"].to_pylist() == [str(folder.resolve() / name) for name in expected]
    assert set(corpus.table["split"].to_pylist()) == {"unlabeled"}
    assert corpus.table["arousal"].null_count == len(expected)


def test_tables_that_name_no_files_do_not_make_a_folder_a_manifest(tmp_path: Path) -> None:
    folder = _touch(tmp_path, "a.wav")
    (folder / "scores.csv").write_text("epoch,loss\n1,0.5\n")
    assert read_corpus(folder).format == "folder"


def test_a_labeled_corpus_can_be_read_as_bare_audio(tmp_path: Path) -> None:
    folder = _touch(tmp_path, "a.wav")
    (folder / "list.csv").write_text("file,arousal,split\na.wav,3,train\n")
    corpus = read_corpus(folder, format="folder")
    assert corpus.format == "folder" and corpus.table["split"].to_pylist() == ["unlabeled"]
    with pytest.raises(UserError, match="reads no labels"):
        read_corpus(folder, format="folder", labels=folder / "list.csv")


def test_a_folder_without_audio_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nor audio files"):
        read_corpus(tmp_path)
    with pytest.raises(UserError, match=r"no audio files .* under"):
        read_corpus(tmp_path, format="folder")


def _labeled(tmp_path: Path) -> Path:
    folder = _touch(tmp_path / "corpus", "a.wav", "clip.wav")
    (folder / "list.csv").write_text("file,arousal,split\na.wav,3,train\nclip.wav,4,test\n")
    return folder


def test_pools_add_to_any_corpus_and_clashing_names_get_their_folder(tmp_path: Path) -> None:
    folder = _labeled(tmp_path)
    plain = _touch(tmp_path / "plain", "x/1.wav", "2.wav")
    clashing = _touch(tmp_path / "more" / "pool", "clip.wav", "other.wav")
    again = _touch(tmp_path / "yet" / "pool", "clip.wav", "other.wav")
    corpus = read_corpus(folder, unlabeled=[plain, clashing, again])
    ids = dict(zip(corpus.table["utterance_id"].to_pylist(), corpus.table["path"].to_pylist(), strict=True))
    assert list(ids) == [
        "a.wav", "clip.wav", "2.wav", "x/1.wav", "pool/clip.wav", "pool/other.wav", "pool-2/clip.wav",
        "pool-2/other.wav",
    ]  # fmt: skip
    assert ids["pool-2/other.wav"] == str(again.resolve() / "other.wav")
    assert corpus.table["split"].to_pylist() == ["train", "test"] + ["unlabeled"] * 6
    assert corpus.format == "manifest"


def test_no_recording_is_both_labeled_and_in_a_pool(tmp_path: Path) -> None:
    folder = _labeled(tmp_path)
    pool = _touch(tmp_path / "pool", "new.wav")
    os.symlink(folder / "clip.wav", pool / "linked.wav")
    corpus = read_corpus(folder, unlabeled=[pool, pool, folder])
    assert corpus.table["utterance_id"].to_pylist() == ["a.wav", "clip.wav", "new.wav"]
    assert corpus.warnings == (
        f"1 files under {pool} are already in the corpus; read once",
        f"2 files under {pool} are already in the corpus; read once",
        f"2 files under {folder} are already in the corpus; read once",
    )


@pytest.mark.parametrize("name", ["nowhere", "file.wav"])
def test_a_pool_must_be_a_folder(tmp_path: Path, name: str) -> None:
    folder = _labeled(tmp_path)
    _touch(tmp_path, "file.wav")
    with pytest.raises(UserError, match=f"{name} is not a folder of audio files"):
        read_corpus(folder, unlabeled=[tmp_path / name])


def test_links_are_followed_once_and_never_upwards(tmp_path: Path) -> None:
    folder = _touch(tmp_path / "pool", "z/a.wav")
    _touch(tmp_path, "outside/b.wav", "beside.wav")
    os.symlink(folder / "z", folder / "again")
    os.symlink(tmp_path / "outside", folder / "far")
    os.symlink(tmp_path / "outside", folder / "far2")
    os.symlink(tmp_path, folder / "z" / "up")
    os.symlink(folder / "loop.wav", folder / "loop.wav")
    os.symlink(folder / "z" / "a.wav", folder / "z" / "same.wav")
    listing = list_audio(folder)
    assert [file.name for file in listing.files] == ["far/b.wav", "z/a.wav", "z/same.wav"]
    corpus = read_corpus(folder)
    assert corpus.table["utterance_id"].to_pylist() == ["far/b.wav", "z/a.wav"]
    assert corpus.skipped == (
        Skipped("loop.wav", "a link to a missing file, or not a regular file"),
        Skipped("z/same.wav", "a link to z/a.wav"),
    )


def test_a_folder_named_like_audio_is_a_folder(tmp_path: Path) -> None:
    assert [file.name for file in list_audio(_touch(tmp_path, "odd.wav/in.wav")).files] == ["odd.wav/in.wav"]


def test_a_folder_that_cannot_be_listed_is_left_out_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _touch(tmp_path / "pool", "a.wav", "closed/b.wav")
    scandir = os.scandir

    def refusing(path: str) -> object:  # root, as which tests may run, could list any folder
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    listing = list_audio(folder)
    assert [file.name for file in listing.files] == ["a.wav"]
    assert listing.warnings == [f"cannot list {folder / 'closed'}: Permission denied; it is left out"]
    with pytest.raises(UserError, match="Permission denied"):
        list_audio(folder / "closed")


def test_the_demo_corpus_says_that_it_is_synthetic(tmp_path: Path) -> None:
    folder = write_demo_corpus(tmp_path / "demo", num_train=2, num_validation=1, num_test=1, num_unlabeled=2)
    corpus = read_corpus(folder, unlabeled=[folder / "Unlabeled"])
    assert corpus.synthetic and corpus.format == "msp-podcast" and corpus.skipped == ()
    assert sorted(corpus.table["split"].to_pylist()).count("unlabeled") == 2
    assert corpus.table.num_rows == 6

"""Stores behind a URI are fetched once, checked, and kept."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from stores import make_store

from raydec.errors import UserError
from raydec.features import store_cache
from raydec.features.store import FeatureStore
from raydec.features.store_cache import CACHE_VARIABLE, absolute_store, local_store


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return make_store(tmp_path / "bucket", num_train=4, num_unlabeled=0)


def test_a_store_behind_a_uri_is_the_same_store(remote: Path) -> None:
    uri = f"file://{remote}"
    assert absolute_store(uri) == uri
    fetched = FeatureStore.open(local_store(uri))
    original = FeatureStore.open(remote)
    assert fetched.path != original.path
    assert fetched.utterances.equals(original.utterances)
    for name in ("store.json", "utterances.arrow", "frames-00000.arrow"):
        assert (fetched.path / name).read_bytes() == (remote / name).read_bytes()


def test_it_is_fetched_once_however_many_ask(remote: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetches = []
    fetch = store_cache._fetch
    monkeypatch.setattr(store_cache, "_fetch", lambda *given: (fetches.append(1), fetch(*given)))
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(local_store, [f"file://{remote}"] * 4))
    assert len(folders) == len(fetches) == 1


def test_another_store_at_the_same_place_is_fetched_anew(remote: Path) -> None:
    before = local_store(f"file://{remote}")
    content = json.loads((remote / "store.json").read_text())
    (remote / "store.json").write_text(json.dumps(content, indent=3))
    assert local_store(f"file://{remote}") != before


def test_what_arrives_damaged_is_refused_and_not_kept(remote: Path, tmp_path: Path) -> None:
    frames = remote / "frames-00000.arrow"
    content = bytearray(frames.read_bytes())
    content[-100] ^= 1
    frames.write_bytes(content)
    for _ in range(2):
        with pytest.raises(
            UserError, match=r"frames-00000\.arrow of data\.store=.* does not match its checksum"
        ):
            local_store(f"file://{remote}")
    assert [path.name for path in (tmp_path / "cache" / "stores").iterdir() if path.suffix != ".lock"] == []


@pytest.mark.parametrize("name", ["../../evil", "/etc/passwd", "frames-00000.arrow/../../x"])
def test_a_store_cannot_name_files_elsewhere(remote: Path, name: str) -> None:
    content = json.loads((remote / "store.json").read_text())
    content["shards"][0]["file"] = name
    (remote / "store.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="which is not a frames file"):
        local_store(f"file://{remote}")


@pytest.mark.parametrize("location", ["file:///nowhere/store", "gopher://x/y"])
def test_nothing_there_is_one_line(location: str) -> None:
    with pytest.raises(UserError, match=r"data\.store=.* cannot be read") as caught:
        local_store(location)
    assert "\n" not in str(caught.value)

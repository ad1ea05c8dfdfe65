"""A store with the labels of some training utterances hidden."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from corpus_support import make_store, many, write_corpus
from report_support import TINY

from raydec.config import DataConfig, load_config
from raydec.errors import UserError
from raydec.experiment import train_run
from raydec.features.store import FeatureStore
from raydec.features.store_view import view
from raydec.learning.data import select_data
from raydec.learning.label_aware import label_columns
from raydec.learning.worker import LocalWorker
from raydec.model.outputs import Outputs
from raydec.pages.finished_run import open_run


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Three training speakers with 6, 4 and 2 utterances, and a validation and a test speaker."""
    folder = tmp_path_factory.mktemp("labels")
    counts = {"a": 6, "b": 4, "c": 2}
    utterances = [
        spoken for name, count in counts.items() for spoken in many(count, "train", name, speaker=name)
    ]
    utterances += [*many(4, "validation", "v", speaker="v"), *many(4, "test", "t", speaker="t")]
    return make_store(write_corpus(folder / "audio", utterances), folder / "store")


def labeled(store: FeatureStore, split: str = "train") -> set[int]:
    return set(store.rows(split, ["arousal"]).tolist())


def shown(store: FeatureStore, number: int | None, **data: object) -> FeatureStore:
    return view(store, DataConfig(labeled_utterances=number, **data))


def test_labels_are_kept_evenly_over_speakers_and_a_smaller_number_is_a_subset(store: FeatureStore) -> None:
    speakers = store.utterances["speaker"].to_pylist()
    kept = {number: labeled(shown(store, number)) for number in (3, 6, 8, 12)}
    counts = {number: Counter(speakers[row] for row in rows) for number, rows in kept.items()}
    assert counts == {
        3: {"a": 1, "b": 1, "c": 1},
        6: {"a": 2, "b": 2, "c": 2},
        8: {"a": 3, "b": 3, "c": 2},
        12: {"a": 6, "b": 4, "c": 2},
    }
    assert kept[3] < kept[6] < kept[8] < kept[12] == labeled(store)
    assert any(labeled(shown(store, 6, labeled_seed=seed)) != kept[6] for seed in range(5))
    assert all(labeled(shown(store, 3), split) == labeled(store, split) for split in ("validation", "test"))


def test_hidden_labels_reach_neither_statistics_nor_kmeans_nor_another_process(store: FeatureStore) -> None:
    some = shown(store, 6)
    settings = [f"data.store={store.path}", "data.attributes=[arousal]", "data.labeled_utterances=6"]
    config = load_config(None, [*TINY, *settings])
    data = select_data(config, some)
    kept = sorted(labeled(some))
    assert data.labeled.rows.tolist() == kept
    assert data.unlabeled is not None and set(data.unlabeled.rows) == labeled(store) - set(kept)
    labels = np.array(store.utterances["arousal"].to_pylist())[kept]
    assert data.targets.outputs.mean[0] == pytest.approx(labels.mean())
    columns = label_columns(data.pooled, data.targets.outputs, LocalWorker())
    assert np.isfinite(columns).all(axis=1).sum() == 6 * data.pooled.num_chunks
    assert pickle.loads(pickle.dumps(some)).utterances.equals(some.utterances)


def test_more_labels_than_there_are_is_refused(store: FeatureStore) -> None:
    with pytest.raises(UserError, match=r"data.labeled_utterances=13, but train of .* has 12 labeled"):
        shown(store, 13)


@pytest.mark.parametrize(
    ("emotions", "attributes", "usable"),
    [(("A", "N"), (), 12), (("all",), (), 18), (("A",), ("arousal",), 30)],
)
def test_only_utterances_that_are_learned_from_are_counted(
    tmp_path: Path, emotions: tuple[str, ...], attributes: tuple[str, ...], usable: int
) -> None:
    utterances = many(30, "train", speaker="a")
    made = make_store(write_corpus(tmp_path / "audio", utterances), tmp_path / "store")
    made = made.with_columns({"emotion": pa.array(["A", "N", "S", "X", None] * 6, pa.string())})
    classes = ("A", "N", "S") if emotions == ("all",) else emotions
    outputs = Outputs(attributes, (0.0,) * len(attributes), (1.0,) * len(attributes), {"emotion": classes})
    assert len(outputs.labeled_rows(made, "train")) == usable
    for number in (5, usable):
        few = shown(made, number, emotions=emotions, attributes=attributes)
        assert len(outputs.labeled_rows(few, "train")) == number
    with pytest.raises(UserError, match=f"has {usable} labeled utterances"):
        shown(made, usable + 1, emotions=emotions, attributes=attributes)


def test_a_run_with_few_labels_trains_and_its_report_opens(store: FeatureStore, tmp_path: Path) -> None:
    settings = {
        "data.store": store.path,
        "data.attributes": "[arousal]",
        "data.labeled_utterances": 6,
        "training.epochs": 1,
        "ray.num_workers": 0,
        "output_dir": tmp_path,
        "name": "few",
    }
    result = train_run(load_config(None, [*TINY, *(f"{key}={value}" for key, value in settings.items())]))
    assert labeled(open_run(result.folder).store) == labeled(shown(store, 6))

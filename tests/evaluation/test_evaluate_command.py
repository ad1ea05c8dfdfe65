"""The evaluate command: files, tables and mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from corpus_support import Spoken, make_store, write_corpus
from model_support import small_model

from raydec.console.terminal import run_entry_point
from raydec.evaluate import main
from raydec.evaluation.scoring import evaluate as evaluate_directly
from raydec.features.store import FeatureStore
from raydec.inference.prediction import load
from raydec.model.directory import save_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models and a store, below one folder."""
    folder = tmp_path_factory.mktemp("command")
    spoken = [Spoken("train.wav", "train", speaker="a|b"), Spoken("none.wav", "unlabeled", arousal=None)]
    for split in ("validation", "test1"):
        spoken += [
            Spoken(f"{split}{i}.wav", split, 0.4 + i / 2, arousal=1.0 + i, speaker=f"a|{'bc'[i % 2]}")
            for i in range(6)
        ]
    make_store(write_corpus(folder / "audio", spoken), folder / "store")
    save_model(small_model(extra={"run": "one"}), folder / "one")
    save_model(small_model(centroids=False), folder / "two")
    return folder


@pytest.fixture(autouse=True)
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def evaluate(*arguments: str) -> int:
    return run_entry_point(main, [*arguments, "--resamples", "100"])


SCORE_KEYS = {"num_utterances", "ccc", "mean_error", "rmse"}


def test_json_has_the_documented_keys(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("one", "store", "--out", "deep/m.json", "--against", "two", "--seed", "3") == 0
    assert "wrote deep/m.json and deep/m.md" in capsys.readouterr().out
    document = json.loads((folder / "deep/m.json").read_text(encoding="utf-8"))
    assert document.keys() == {
        *("schema_version", "raydec_version", "model", "against", "store"),
        *("seed", "num_resamples", "ccc", "splits"),
    }
    assert (document["schema_version"], document["seed"], document["num_resamples"]) == (1, 3, 100)
    identity = {"path", "sha256", "run", "attributes", "classes"}
    assert document["model"].keys() == document["against"].keys() == identity
    assert document["model"]["attributes"] == ["arousal", "valence", "dominance"]
    assert document["store"] == {"path": "store", "corpus": "tiny", "synthetic": False}
    assert document["ccc"].keys() == document["splits"].keys() == {"test1"}
    split = document["splits"]["test1"]
    assert split.keys() == {
        *("num_utterances", "num_speakers", "duration_s", "clusters_used", "attributes"),
        *("classes", "emotion", "speakers", "durations", "notes"),
    }
    (attribute,) = split["attributes"].values()
    assert attribute.keys() == {
        *("ccc", "low", "high", "unit", "num_units", "num_utterances"),
        *("mean_error", "rmse", "dependency", "against", "raters"),
    }
    assert attribute["ccc"] == document["ccc"]["test1"]["arousal"]
    assert attribute["dependency"].keys() == {
        *("eta_squared", "epsilon_squared", "p_value", "within_speakers")
    }
    assert attribute["against"].keys() == {
        *("ccc", "difference", "low", "high", "p_value", "unit", "num_units")
    }
    assert [speaker["speaker"] for speaker in split["speakers"]] == ["a|b", "a|c"]
    assert split["durations"][0]["from_s"] == 0 and split["durations"][-1]["to_s"] == 4
    for group in (*split["speakers"], *split["durations"]):
        assert group["scores"]["arousal"].keys() == SCORE_KEYS


def test_json_holds_what_the_function_returns(folder: Path) -> None:
    assert evaluate("one", "store", "--split", "DEV", "test 1", "--split", "valid", "--out", "m.json") == 0
    document = json.loads((folder / "m.json").read_text(encoding="utf-8"))
    direct = evaluate_directly(folder / "one", folder / "store", ["validation", "test1"], num_resamples=100)
    assert list(document["splits"]) == [split.split for split in direct.splits] == ["validation", "test1"]
    for split in direct.splits:
        found = document["splits"][split.split]["attributes"]["arousal"]
        wanted = split.attributes["arousal"]
        assert (found["ccc"], found["low"]) == (wanted.estimate.ccc, wanted.estimate.low)
        assert found["dependency"]["p_value"] == wanted.dependency.p_value and found["against"] is None
    # The same command writes the same bytes.
    first = (folder / "m.json").read_bytes(), (folder / "m.md").read_bytes()
    assert evaluate("one", "store", "--split", "dev", "test1", "--out", "m.json") == 0
    assert first == ((folder / "m.json").read_bytes(), (folder / "m.md").read_bytes())


def test_markdown_tables_have_as_many_cells_as_columns(folder: Path) -> None:
    assert evaluate("one", "store", "--out", "t.json", "--against", "two") == 0
    text = (folder / "t.md").read_text(encoding="utf-8")
    assert text.startswith("# Evaluation of one on tiny\n")
    for heading in ("## Against `two`", "## test1", "### By duration", "### By speaker", "## How"):
        assert f"\n{heading}\n" in text
    assert "a\\|b" in text
    widths = [line.replace("\\|", "").count("|") for line in text.splitlines()]
    runs = [
        width
        for before, width in zip([0, *widths], widths, strict=False)
        if width and before not in (0, width)
    ]
    assert runs == [] and max(widths) == 10
    document = json.loads((folder / "t.json").read_text(encoding="utf-8"))
    assert f"| {document['ccc']['test1']['arousal']:.4f} |" in text


def test_the_table_is_whole_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("one", "store", "--against", "two") == 0
    printed, complaints = capsys.readouterr()
    assert complaints == ""
    for word in (
        "one on tiny",
        "test1",
        "arousal",
        "95% interval",
        "2 speakers",
        "η²",
        "difference",
        "against two",
    ):
        assert word in printed
    assert "note on test1: 2 speakers are few" in printed
    assert "…" not in printed and max(map(len, printed.splitlines())) < 160


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["one", "store", "--split", "test9"],
            "no split 'test9'; its splits are train, validation, test1, un",
        ),
        (["one", "store", "--split", "unlabeled"], "has no labels for what the model predicts"),
        (["one", "nowhere"], "no feature store at"),
        (["nowhere", "store"], "nowhere is not a model directory"),
        (["one", "store", "--against", "nowhere"], "nowhere is not a model directory"),
        (["one", "store", "--out", "metrics.txt"], "it must end in .json"),
        (["one", "store", "--out", "notes.json"], "notes.md exists and is not an evaluation"),
        (["one", "store", "--out", "folder.json"], "is a folder"),
        (["one", "store", "--out", "one/config.json/m.json"], "cannot write one/config.json/m.json"),
        (["one", "store", "--seed", "-1"], "--seed: must be a non-negative integer, not '-1'"),
        (["one", "store", "--resamples", "5"], "5 is out of range"),
        (["one"], "STORE_DIR"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "notes.md").write_text("my own notes")
    (folder / "folder.json").mkdir(exist_ok=True)
    extra = [] if "--resamples" in arguments else ["--resamples", "100"]
    assert run_entry_point(main, [*arguments, *extra]) == 2
    complaint = capsys.readouterr().err
    assert message in complaint and complaint.count("\n") == 1
    assert (folder / "notes.md").read_text() == "my own notes"


def write_predictions(folder: Path, name: str, *, stretch: float = 1.0, rename: str = "{}") -> None:
    """What a model says, as another program's table with names and numbers of its own."""
    predictor = load("one", "cpu")
    store = FeatureStore.open("store")
    rows = store.rows("test1")
    scores = predictor.predict_store(store, rows).scores[:, 0]
    ids = [Path(store.utterances["utterance_id"][int(row)].as_py()).stem for row in rows]
    lines = [
        f"{rename.format(one)},{score * stretch!r}" for one, score in zip(ids, scores.tolist(), strict=True)
    ]
    (folder / name).write_text("\n".join(["FileName,EmoAct", *reversed(lines)]) + "\n")


@pytest.mark.parametrize("rename", ["{}.wav", "/data/other/{}.flac", "C:\\audio\\{}.WAV", "{}"])
def test_predictions_of_another_program_get_the_same_scores(folder: Path, rename: str) -> None:
    write_predictions(folder, "theirs.csv", rename=rename)
    assert evaluate("store", "--predictions", "theirs.csv", "--against", "one", "--out", "p.json") == 0
    assert evaluate("one", "store", "--out", "m.json", "--against", "two") == 0
    theirs, ours = (json.loads((folder / name).read_text(encoding="utf-8")) for name in ("p.json", "m.json"))
    found, wanted = (document["splits"]["test1"]["attributes"]["arousal"] for document in (theirs, ours))
    for key in ("ccc", "low", "high", "mean_error", "rmse", "num_utterances"):
        assert found[key] == pytest.approx(wanted[key], abs=1e-9)
    assert found["against"]["difference"] == pytest.approx(0, abs=1e-9)
    assert theirs["model"]["path"] == "theirs.csv" and theirs["against"]["path"] == "one"


def test_a_model_is_compared_with_predictions_by_the_same_paired_test(folder: Path) -> None:
    write_predictions(folder, "wide.csv", stretch=1.5)
    assert evaluate("one", "store", "--against", "wide.csv", "--out", "a.json") == 0
    assert evaluate("store", "--predictions", "wide.csv", "--against", "one", "--out", "b.json") == 0
    first, second = (
        json.loads((folder / name).read_text(encoding="utf-8"))["splits"]["test1"]["attributes"]["arousal"]
        for name in ("a.json", "b.json")
    )
    assert first["against"]["ccc"] == pytest.approx(second["ccc"])
    assert first["against"]["difference"] == pytest.approx(-second["against"]["difference"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,x\na.wav,1\n", "has no column of predictions"),
        ("file,arousal\ntest10.wav,high\n", "line 2: arousal 'high' is not a number"),
        ("file,arousal\ntest10.wav,4\n", "has no prediction for 5 of 6 utterances (test11.wav"),
        (
            "file,arousal\n" + "test10.wav,4\n" * 2 + "".join(f"test1{i}.wav,4\n" for i in range(1, 6)),
            "several",
        ),
    ],
)
def test_tables_without_usable_predictions_say_so(
    folder: Path, content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bad.csv").write_text(content)
    assert evaluate("store", "--predictions", "bad.csv") == 2
    complaint = capsys.readouterr().err
    assert message in complaint and complaint.count("\n") == 1

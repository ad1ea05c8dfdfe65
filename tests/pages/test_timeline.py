"""``predict --plot``: what is drawn equals the rows, the page is bounded, and names cannot run as code."""

from __future__ import annotations

import csv
import io
import logging
import re
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from corpus_support import voice
from docs_support import write_recordings
from model_support import small_classifier, small_model
from page_reader import Elements, specifications

import raydec.inference.work
import raydec.pages.timeline
from raydec.console.terminal import run_entry_point
from raydec.inference.predicted_table import PredictedTable
from raydec.inference.prediction import Predictor
from raydec.inference.rows import result_schema
from raydec.model.directory import save_model
from raydec.model.trained import TrainedModel
from raydec.pages.timeline import write_timeline
from raydec.pages.timeline_figure import EPOCH_MS, clock, make_cells
from raydec.predict import main as predict_main

HOSTILE = "<script>window.hit=1</script><img src=x onerror='window.hit=1'>\"'&amp;</script>.wav"
WINDOWS = ("--windows", "1", "--hop", "0.25")
Row = dict[str, str]


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models, a recording with a silent second, one with a pause and one that cannot be read."""
    monkeypatch.chdir(tmp_path)
    save_model(small_model(extra={"label_range": [1, 7]}), "model")
    save_model(small_classifier(), "classifier")
    Path("in").mkdir()
    silence = np.zeros(24_000, np.float32)
    soundfile.write("in/a.wav", np.concatenate([voice(1, 2.0), silence, voice(2, 1.6)]), 16_000)
    soundfile.write("in/b.wav", np.concatenate([voice(3, 1.5), silence[:9600], voice(4, 1.0)]), 16_000)
    Path("in/bad.wav").write_bytes(b"garbage")
    return tmp_path


def predict(*arguments: str) -> int:
    return run_entry_point(predict_main, arguments)


def rows_by_file(path: str) -> dict[str, list[Row]]:
    """Rows with a time, by file."""
    found: dict[str, list[Row]] = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["end"]:
                found.setdefault(row["file"], []).append(row)
    return found


def figures(page: str | Path) -> dict[str, dict[str, Any]]:
    """The figures of a page by their headings."""
    text = Path(page).read_text(encoding="utf-8")
    titles = [body for attributes, body in Elements(text).named("h3") if "id" in attributes]
    return dict(zip(titles, specifications(text).values(), strict=True))


def level(trace: dict[str, Any], second: float) -> float | None:
    """The height of a line at a time, from the ends of its pieces."""
    ends_s = [(x - EPOCH_MS) / 1000 for x in trace["x"]]
    pieces = pairwise(zip(ends_s, trace["y"], strict=True))
    found = [left for (start, left), (end, right) in pieces if start < second < end and left == right]
    assert len(found) <= 1
    return found[0] if found else None


def cell(trace: dict[str, Any], row: int, second: float) -> tuple[int | None, str | None]:
    """Colour and text of a strip at a time."""
    edges_s = [(x - EPOCH_MS) / 1000 for x in trace["x"]]
    for place, (start, end) in enumerate(pairwise(edges_s)):
        if start < second < end:
            return trace["z"][row][place], trace["text"][row][place]
    return None, None


def assert_drawn(
    figure: dict[str, Any], rows: Sequence[Row], attributes: Sequence[str], group: str = ""
) -> None:
    """Every row is drawn at the middle of its window."""
    traces = {trace.get("name", "strips"): trace for trace in figure["data"]}
    for row in rows:
        middle = (float(row["start"]) + float(row["end"])) / 2
        for name in attributes:
            assert level(traces[name], middle) == (float(row[name]) if row[name] else None), (row, name)
        color, text = cell(traces["strips"], 0, middle)
        assert color == (int(row["cluster"]) % 10 if row["cluster"] else None)
        if row["cluster"]:
            assert text == f"cluster {row['cluster']}"
        if group:
            best = max((value, name) for name, value in row.items() if name.startswith(f"{group}_"))[0]
            expected = f"{row[group]} ({float(best):.0%})" if row[group] else "–"
            assert cell(traces["strips"], 1, middle)[1] == expected


@pytest.mark.parametrize("options", [WINDOWS, ("--segments", "energy"), ("--segments", "energy", *WINDOWS)])
def test_what_is_drawn_equals_the_rows(recordings: Path, options: tuple[str, ...]) -> None:
    assert predict("model", "in", "--out", "o.csv", *options, "--plot", "p.html") == 0
    rows, drawn = rows_by_file("o.csv"), figures("p.html")
    assert list(drawn) == list(rows) == ["in/a.wav", "in/b.wav"]
    for file, figure in drawn.items():
        assert len(rows[file]) > 1
        assert_drawn(figure, rows[file], ("arousal", "valence", "dominance"))
        assert figure["layout"]["yaxis"]["title"]["text"] == "score (labels: 1 to 7)"
        assert figure["layout"]["xaxis"]["title"]["text"] == "time (min:s)"


def test_speech_that_the_detector_finds_is_drawn_with_the_pauses_between(recordings: Path) -> None:
    pytest.importorskip("silero_vad", reason="silero-vad is in the vad extra")
    write_recordings(Path("spoken"))
    options = ("--segments", "vad", "--plot", "p.html")
    assert predict("model", "spoken", "--out", "o.csv", *options) == 0
    rows, drawn = rows_by_file("o.csv"), figures("p.html")
    assert list(drawn) == list(rows) == [f"spoken/{number}.wav" for number in range(3)]
    pauses = []
    for file, figure in drawn.items():
        assert_drawn(figure, rows[file], ("arousal", "valence", "dominance"))
        traces = {trace.get("name", "strips"): trace for trace in figure["data"]}
        for before, after in pairwise(rows[file]):
            pauses.append((float(before["end"]) + float(after["start"])) / 2)
            assert level(traces["arousal"], pauses[-1]) is None
            assert cell(traces["strips"], 0, pauses[-1])[0] is None
    assert pauses


def test_classes_are_drawn_with_the_probability_of_the_most_probable(recordings: Path) -> None:
    assert predict("classifier", "in", "--out", "o.csv", *WINDOWS, "--plot", "p.html") == 0
    rows = rows_by_file("o.csv")
    for file, figure in figures("p.html").items():
        assert_drawn(figure, rows[file], ("arousal",), group="emotion")
        assert figure["data"][-1]["y"] == ["cluster", "emotion"]
        assert figure["layout"]["showlegend"] is True


def test_csv_and_parquet_give_the_same_page(recordings: Path) -> None:
    assert predict("classifier", "in", "--out", "o.csv", *WINDOWS, "--plot", "csv.html") == 0
    vectors = ("--embeddings", "--distances")
    assert (
        predict("classifier", "in", "--out", "o.parquet", *WINDOWS, *vectors, "--plot", "parquet.html") == 0
    )
    text = Path("parquet.html").read_text().replace("o.parquet", "o.csv")
    assert text == Path("csv.html").read_text()


def test_a_resumed_prediction_gives_the_same_page(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("model", "in", "--out", "o.csv", *WINDOWS, "--plot", "p.html")
    assert predict(*command) == 0
    whole = Path("p.html").read_bytes()
    Path("p.html").unlink()
    monkeypatch.setattr(raydec.inference.work, "_FILES_PER_PART", 1)
    with monkeypatch.context() as patch:
        original, calls = raydec.inference.work.predict_files, []

        def interrupted(predictor, files, *rest):
            if calls:
                raise KeyboardInterrupt
            calls.append(files)
            return original(predictor, files, *rest)

        patch.setattr(raydec.inference.work, "predict_files", interrupted)
        assert predict(*command, "--restart") == 130
        assert calls and not Path("p.html").exists()
    assert predict(*command) == 0
    assert Path("p.html").read_bytes() == whole
    # A table that was finished without a page.
    Path("p.html").unlink()
    assert predict(*command) == 0
    assert Path("p.html").read_bytes() == whole


def test_the_page_refers_to_nothing_elsewhere_and_lists_errors(recordings: Path) -> None:
    assert predict("model", "in", "--out", "o.csv", *WINDOWS, "--plot", "p.html") == 0
    elements = Elements(Path("p.html").read_text(encoding="utf-8"))
    links = [
        attributes[name]
        for _, attributes, _ in elements.found
        for name in ("src", "href")
        if name in attributes
    ]
    assert links and all(str(link).startswith("#") for link in links)
    anchors = {f"#{attributes['id']}" for _, attributes, _ in elements.found if "id" in attributes}
    assert set(links) <= anchors
    (policy,) = [a["content"] for a, _ in elements.named("meta") if "http-equiv" in a]
    assert str(policy).startswith("default-src 'none'; script-src 'sha256-")
    cells = [body for tag in ("th", "td") for _, body in elements.named(tag)]
    assert {"in/bad.wav", "silent: every sample is zero"} <= set(cells)
    # The rows as text, in the order of the file.
    (first,) = [row for row in rows_by_file("o.csv")["in/a.wav"] if row["start"] == "0.25"]
    assert "0:00.25" in cells and f"{float(first['valence']):.3f}" in cells
    assert next(body for _, body in elements.named("summary")) == "What is drawn of in/a.wav"


def test_hostile_names_of_files_and_classes_are_text(tmp_path: Path) -> None:
    trained = small_classifier()
    spec, network = trained.networks[0]
    classes = {"emotion": ("</script><img src=x onerror=hit()>", "H", "N")}
    table = random_table(
        tmp_path / f"{HOSTILE.replace('/', '')}.csv",
        small_model(networks=[(type(spec)(**{**vars(spec), "classes": classes}), network)]),
        {HOSTILE: 5},
    )
    text = write_timeline(table, tmp_path / "p.html").read_text(encoding="utf-8")
    elements = Elements(text)
    assert not any("onerror" in attributes or tag == "img" for tag, attributes, _ in elements.found)
    assert len(list(elements.named("script"))) == 3
    assert list(figures(tmp_path / "p.html")) == [HOSTILE]
    shown = figures(tmp_path / "p.html")[HOSTILE]["data"][-1]["text"][1]
    assert not any("<" in label for label in shown)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in", "--out", "o.csv", "--plot", "p.html"], "add --windows SECONDS or --segments energy"),
        (["in", "--out", "o.csv", *WINDOWS, "--plot", "p.txt"], "p.txt: the name must end in .html"),
        (["in", "--out", "o.csv", *WINDOWS, "--plot", "no/p.html"], "cannot write timeline no/p.html"),
        (["in", "--out", "o.csv", *WINDOWS, "--plot", "in.html"], "in.html: it is a folder"),
        (["-", "--plot", "p.html"], "--plot p.html needs a file of rows; add --out FILE.csv"),
        (["-", "--out", "o.csv", "--plot", "p.csv"], "p.csv: the name must end in .html"),
    ],
)
def test_mistakes_are_one_line_before_any_work(
    recordings: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in.html").mkdir()
    # With a model that does not exist, anything later would complain about it.
    assert predict("no-model", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not Path("o.csv").exists() and not Path("p.html").exists()


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV", subtype="PCM_16")
    return file.getvalue()


class Interrupted(io.BytesIO):
    """A stream that the user stops after a second."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > 64_000:
            raise KeyboardInterrupt
        return super().read(size)


@pytest.mark.parametrize(("make", "status"), [(io.BytesIO, 0), (Interrupted, 130)])
def test_standard_input_is_drawn_even_if_it_is_stopped(
    recordings: Path, make: Callable[[bytes], io.BytesIO], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=make(wav(voice(1, 3.0)))))
    assert predict("model", "-", "--out", "o.csv", "--windows", "0.5", "--plot", "p.html") == status
    rows = rows_by_file("o.csv")["-"]
    assert len(rows) == (6 if status == 0 else 3)
    drawn = figures("p.html")
    assert list(drawn) == ["standard input"]
    assert_drawn(drawn["standard input"], rows, ("arousal", "valence", "dominance"))


def random_table(
    path: Path, trained: TrainedModel, num_rows: dict[str, int], window_s: float = 4.0, hop_s: float = 1.0
) -> PredictedTable:
    """A finished CSV file with overlapping windows and random scores."""
    predictor = Predictor(trained, torch.device("cpu"))
    schema = result_schema(predictor)
    rng = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, schema.names, lineterminator="\n")
        writer.writeheader()
        for name, count in num_rows.items():
            for place in range(count):
                row: dict[str, Any] = {"file": name, "start": place * hop_s, "end": place * hop_s + window_s}
                row |= dict.fromkeys(predictor.outputs.names) | {"cluster": rng.integers(0, 25)}
                row |= {output: rng.uniform(0, 1) for output in predictor.outputs.names}
                row |= {group: rng.choice(names) for group, names in predictor.outputs.classes.items()}
                writer.writerow(row)
    return PredictedTable(path, schema, predictor.outputs, predictor.trained.label_range)


def test_many_clusters_are_drawn_with_their_numbers(tmp_path: Path) -> None:
    table = random_table(tmp_path / "o.csv", small_model(), {"x": 60})
    write_timeline(table, tmp_path / "p.html")
    rows = rows_by_file(str(tmp_path / "o.csv"))["x"]
    assert len({row["cluster"] for row in rows}) > 15
    assert_drawn(figures(tmp_path / "p.html")["x"], rows, ("arousal", "valence", "dominance"))
    text = (tmp_path / "p.html").read_text()
    assert "Colours repeat after 10 clusters." in text


def test_hundreds_of_files_and_long_ones_are_drawn_in_part_and_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(raydec.pages.timeline, "MAX_ROWS", 500)
    table = random_table(
        tmp_path / "o.csv", small_model(), {f"{i:03d}.wav": 1 + 33 * (i == 7) for i in range(310)}
    )
    with caplog.at_level(logging.WARNING):
        page = write_timeline(table, tmp_path / "p.html")
    told = "only the first 50 of 310 files are drawn; the rows of the other 260 are in o.csv"
    assert told in caplog.text
    text = page.read_text(encoding="utf-8")
    elements = Elements(text)
    notices = [body for attributes, body in elements.named("p") if attributes.get("class") == "notice"]
    assert notices[0] == f"{told[0].upper()}{told[1:]}."
    drawn = figures(page)
    assert list(drawn) == [f"{i:03d}.wav" for i in range(50)]
    # 34 rows where 500 / 50 = 10 are allowed: one in 4.
    captions = [body for _, body in elements.named("figcaption")]
    assert captions[6:8] == [
        "1 row from 0:00 to 0:04.",
        "34 rows from 0:00 to 0:37; one in 4 is drawn.",
    ]
    strips = drawn["007.wav"]["data"][-1]
    rows = rows_by_file(str(tmp_path / "o.csv"))["007.wav"]
    assert [int(re.sub(r"\D", "", label)) for label in strips["text"][0]] == [
        int(r["cluster"]) for r in rows[::4]
    ]
    assert (strips["x"][-1] - EPOCH_MS) / 1000 == 37


def test_a_page_of_the_largest_size_is_bounded(tmp_path: Path) -> None:
    sizes = [
        write_timeline(random_table(tmp_path / "o.csv", small_model(), rows), tmp_path / "p.html")
        .stat()
        .st_size
        for rows in ({str(i): 201 for i in range(60)}, {"0": 1})
    ]
    # What is not the rows is mainly plotly.js. 201 rows are one too many, so one in two is drawn.
    assert sizes[0] - sizes[1] < 3e6


def test_a_table_without_rows_or_predictions_is_still_a_page(recordings: Path) -> None:
    assert predict("model", "in/bad.wav", "--out", "o.csv", *WINDOWS, "--plot", "p.html") == 1
    assert figures("p.html") == {} and "in/bad.wav" in Path("p.html").read_text()
    empty = random_table(recordings / "empty.csv", small_model(), {})
    assert figures(write_timeline(empty, recordings / "e.html")) == {}


def test_windows_share_the_time_between_them() -> None:
    start = np.array([0.0, 1.0, 2.0, 8.0, 9.5])
    cells = make_cells(start, np.array([4.0, 5.0, 6.2, 9.0, 10.0]), 99)
    assert cells.left_s.tolist() == [0.0, 2.5, 3.55, 8.0, 9.5]
    assert cells.right_s.tolist() == [2.5, 3.55, 6.2, 9.0, 10.0]
    assert cells.is_after_gap.tolist() == [False, False, False, True, True]
    thinned = make_cells(start, np.array([4.0, 5.0, 6.2, 9.0, 10.0]), 3)
    assert thinned.rows.tolist() == [0, 2, 4] and thinned.every == 2
    assert thinned.left_s.tolist() == [0.0, 3.55, 9.5] and thinned.right_s.tolist() == [3.55, 6.2, 10.0]
    assert thinned.is_after_gap.tolist() == [False, False, True]


def test_cells_of_any_rows_are_in_order_and_few() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        count, most = int(rng.integers(1, 40)), int(rng.integers(1, 50))
        start = np.sort(rng.choice([0.0, 0.5, 1.0, 3.0, 9.0], count) + rng.choice([0, 0.25], count))
        cells = make_cells(start, start + rng.choice([0.1, 0.25, 0.5, 4.0], count), most)
        assert 1 <= len(cells.rows) <= most
        assert (cells.right_s >= cells.left_s).all() and (cells.left_s[1:] >= cells.right_s[:-1]).all()
        assert (cells.is_after_gap[1:] == (cells.left_s[1:] > cells.right_s[:-1])).all()


def test_times_are_minutes_and_seconds_to_the_millisecond() -> None:
    assert [clock(second) for second in (0.0, 4.05, 65.25, 599.9996, 3599.0, 3600.0, 36_061.5)] == [
        "0:00", "0:04.05", "1:05.25", "10:00", "59:59", "1:00:00", "10:01:01.5"
    ]  # fmt: skip
    assert clock(65.25, 3600.0) == "0:01:05.25"

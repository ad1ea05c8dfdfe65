"""The report: its numbers equal those of evaluate, it is self-contained, and data cannot run as code."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import importlib.util
import io
import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from markupsafe import Markup
from page_reader import Elements, specifications
from report_support import make_tiny_run, make_tiny_store
from sklearn.decomposition import PCA

from raydec.errors import UserError
from raydec.evaluation.scoring import evaluate
from raydec.pages import nearest as report_nearest
from raydec.pages.analysis import Analysis, analyse
from raydec.pages.cluster_map import choose_chunks, chunk_times, cluster_map, project
from raydec.pages.finished_run import score_split
from raydec.pages.html_page import Plot, Section, Table, Tile, plot_text, render_page
from raydec.pages.nearest import clip_wav, nearest_chunks, nearest_table
from raydec.pages.run_report import report_html, write_report
from raydec.pages.tables import confusion
from raydec.report import main

REPORTING = Path(report_nearest.__file__).parent
HOSTILE = "<script>window.hit=1</script><img src=x onerror='window.hit=1'>\"'&amp;</script>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def store(folder: Path) -> Path:
    return make_tiny_store(folder)


@pytest.fixture(scope="module")
def run_dir(folder: Path, store: Path) -> Path:
    return make_tiny_run(folder / "runs", store)


@pytest.fixture(scope="module")
def analysis(run_dir: Path) -> Analysis:
    return analyse(run_dir)


@pytest.fixture
def run_copy(run_dir: Path, tmp_path: Path) -> Path:
    """A run directory to damage."""
    return Path(shutil.copytree(run_dir, tmp_path / "run"))


def with_columns(analysis: Analysis, **columns: list[str | None]) -> Analysis:
    """The analysis of a split whose table has other texts."""
    table = analysis.view.table
    for name, values in columns.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(values, pa.string()))
    return dataclasses.replace(analysis, view=dataclasses.replace(analysis.view, table=table))


def test_it_has_a_figure_or_table_for_everything_promised(analysis: Analysis) -> None:
    text = report_html(analysis)
    assert set(specifications(text)) == {
        "losses", "validation", "ccc", "scatter-arousal", "scatter-dominance", "scatter-valence",
        "agreement", "dependency", "drift", "empty", "sizes", "sizes-by-epoch", "cluster-map",
        "emotion-arousal", "emotion-dominance", "emotion-valence", "emotion-classes",
    }  # fmt: skip
    headings = [title for _, title in Elements(text).named("h3")]
    assert {"CCC by split", "Nearest to each centroid", "Arousal: low, middle, high"} <= set(headings)
    assert "SYNTHETIC" in text and "training.epochs" in text and "num_clusters: 3" in text
    assert len(text.encode()) < 10e6


def test_the_same_run_gives_the_same_file(analysis: Analysis, run_dir: Path) -> None:
    assert report_html(analyse(run_dir)) == report_html(analysis)


def test_figures_have_names_and_descriptions_and_ids_are_unique(analysis: Analysis) -> None:
    elements = Elements(report_html(analysis))
    ids = [attributes["id"] for _, attributes, _ in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes, _ in elements.named("figure"):
        assert attributes["aria-labelledby"] in ids
    pictures = [a for a, _ in elements.named("div") if a.get("role") == "img"]
    assert len(pictures) == len(list(elements.named("figure")))
    assert all(len(picture["aria-label"] or "") > 30 for picture in pictures)
    for attributes, _ in elements.named("nav"):
        assert attributes["aria-label"]
    links = {str(attributes["href"]) for attributes, _ in elements.named("a")}
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_it_names_no_other_file_and_only_its_own_scripts_may_run(analysis: Analysis) -> None:
    elements = Elements(report_html(analysis))
    for tag, attributes, _ in elements.found:
        assert tag not in {"link", "iframe", "object", "img", "base"}
        assert "src" not in attributes and not any(name.startswith("on") for name in attributes)
    policy = next(a["content"] for a, _ in elements.named("meta") if "http-equiv" in a) or ""
    scripts = [body for attributes, body in elements.named("script") if "type" not in attributes]
    digests = [base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    assert len(scripts) == 2 and f"script-src {allowed};" in policy
    assert "default-src 'none'" in policy and "http" not in policy


def test_strings_from_data_are_shown_and_never_run(analysis: Analysis) -> None:
    count = len(analysis.view)
    hostile = with_columns(
        analysis,
        utterance_id=[f"{HOSTILE}{row}" for row in range(count)],
        speaker=[HOSTILE, "b"] * (count // 2),
        emotion=[HOSTILE, "N"] * (count // 2),
    )
    run = dataclasses.replace(
        analysis.run, config=analysis.run.config.model_copy(update={"output_dir": HOSTILE})
    )
    text = report_html(dataclasses.replace(hostile, run=run))
    plain = Elements(report_html(analysis))
    elements = Elements(text)
    for tag in ("script", "img", "figure", "audio"):
        assert len(list(elements.named(tag))) == len(list(plain.named(tag)))
    assert not any("onerror" in attributes for _, attributes, _ in elements.found)
    assert any(HOSTILE in body for _, body in elements.named("pre"))
    cells = [cell for _, cell in elements.named("td") if cell.startswith(HOSTILE)]
    assert any(cell.removeprefix(HOSTILE).isdigit() for cell in cells)
    for document in specifications(text).values():
        assert "<script" not in json.dumps(document)
    assert "&lt;script&gt;" in specifications(text)["cluster-map"]["map"]["hover"][0]


def test_intervals_and_dependencies_are_those_of_evaluate(analysis: Analysis, run_dir: Path) -> None:
    found = evaluate(run_dir / "model", analysis.run.store.path, ["validation", "test"])
    for result in found.splits:
        for name, expected in result.attributes.items():
            estimate = analysis.estimates[result.split][name]
            assert estimate.ccc == pytest.approx(expected.estimate.ccc, abs=1e-5)
            assert estimate.low == pytest.approx(expected.estimate.low, abs=1e-4)
            assert estimate.high == pytest.approx(expected.estimate.high, abs=1e-4)
            assert estimate.num_units == expected.estimate.num_units
    test = found.splits[1]
    assert analysis.view.split == test.split
    assert analysis.dependencies == {name: result.dependency for name, result in test.attributes.items()}
    assert analysis.emotion == test.emotion


def test_the_recorded_ccc_is_reproduced_and_a_difference_is_said(analysis: Analysis) -> None:
    for split, estimates in analysis.estimates.items():
        recorded = analysis.run.recorded_scores(split)
        assert recorded.keys() >= estimates.keys()
        assert {name: e.ccc for name, e in estimates.items()} == pytest.approx(
            {name: recorded[name] for name in estimates}, abs=1e-5
        )
    assert not any("instead of" in notice for notice in notices(analysis))
    summary = json.loads(json.dumps(analysis.run.summary))
    summary["ccc"]["test"]["valence"] += 0.01
    changed = dataclasses.replace(analysis, run=dataclasses.replace(analysis.run, summary=summary))
    assert any("test valence" in notice and "instead of" in notice for notice in notices(changed))


def notices(analysis: Analysis) -> list[str]:
    return [text for a, text in Elements(report_html(analysis)).named("p") if a.get("class") == "notice"]


def test_confusion_counts_as_a_loop_does() -> None:
    rng = np.random.default_rng(5)
    labels, scores = rng.integers(1, 8, 200) / 2, rng.normal(2, 1, 200)
    labels[:7] = np.nan
    counts, (low, high) = confusion(scores, labels)
    expected = np.zeros((3, 3), int)
    for score, label in zip(scores, labels, strict=True):
        if label == label:
            row = 0 if label < low else 2 if label > high else 1
            expected[row, 0 if score < low else 2 if score > high else 1] += 1
    assert counts.tolist() == expected.tolist()
    ordered = sorted(labels[7:])
    assert (low, high) == (np.quantile(ordered, 1 / 3), np.quantile(ordered, 2 / 3))


def test_the_map_is_principal_components_and_repeats() -> None:
    rng = np.random.default_rng(3)
    points = (rng.normal(size=(60, 12)) * np.arange(1, 13)).astype(np.float32)
    centroids = points[:4] + 1
    maps = project(points, centroids, seed=0)
    has_umap = importlib.util.find_spec("umap") is not None
    assert [plane.name for plane in maps] == ["PCA", "t-SNE"] + ["UMAP"] * has_umap
    oracle = PCA(2).fit(points)
    for axis, sign in itertools.product(range(2), (1,)):
        expected = oracle.transform(points)[:, axis]
        sign = np.sign(expected @ maps[0].points[:, axis])
        np.testing.assert_allclose(maps[0].points[:, axis], sign * expected, atol=1e-3)
        expected = oracle.transform(centroids)[:, axis]
        np.testing.assert_allclose(maps[0].centroids[:, axis], sign * expected, atol=1e-3)
    assert f"{oracle.explained_variance_ratio_[0]:.0%}" in maps[0].x_title
    again = project(points, centroids, seed=0)
    for one, other in zip(maps, again, strict=True):
        np.testing.assert_array_equal(one.points, other.points)
        np.testing.assert_array_equal(one.centroids, other.centroids)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (6, 1), (40, 2)])
def test_the_map_takes_few_or_equal_or_thin_embeddings(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for points in (rng.normal(size=shape).astype(np.float32), np.ones(shape, np.float32)):
        for plane in project(points, None, seed=0):
            assert plane.points.shape == (shape[0], 2) and np.isfinite(plane.points).all()


def test_the_map_shows_at_most_as_many_chunks_as_asked() -> None:
    assert choose_chunks(10, 0).tolist() == list(range(10))
    chosen = choose_chunks(50_000, 0, limit=2000)
    assert len(set(chosen.tolist())) == 2000 and (np.diff(chosen) > 0).all() and chosen.max() < 50_000
    assert chosen.tolist() == choose_chunks(50_000, 0, limit=2000).tolist()
    assert chosen.tolist() != choose_chunks(50_000, 1, limit=2000).tolist()


def test_only_the_embeddings_on_the_map_are_kept(analysis: Analysis) -> None:
    keep = np.array([0, 5, 11, 12, 40, 131])
    view = score_split(analysis.run, analysis.view.split, keep=keep)
    np.testing.assert_array_equal(view.embeddings, analysis.view.embeddings[keep])
    found = cluster_map(view, None, analysis.run.trained.front_end, analysis.run.trained.chunks, seed=0)
    assert "a random 6 of 132 chunks" in found.caption


def test_every_colouring_of_the_map_covers_every_point(analysis: Analysis) -> None:
    content = specifications(report_html(analysis))["cluster-map"]["map"]
    count = len(content["hover"])
    assert count == len(analysis.view) * analysis.view.num_chunks
    names = [colouring["name"] for colouring in content["colourings"]]
    assert names == ["cluster", "arousal", "dominance", "valence", "emotion", "speaker"]
    for colouring in content["colourings"]:
        if "groups" in colouring:
            rows = sorted(row for group in colouring["groups"] for row in group["rows"])
            assert rows == list(range(count))
        else:
            assert len(colouring["values"]) == count
    clusters = content["colourings"][0]["groups"]
    for group in clusters:
        assert (analysis.view.chunk_clusters[group["rows"]] == int(group["name"])).all()


def test_many_speakers_share_one_colour(analysis: Analysis) -> None:
    names: list[str | None] = [f"s{row}" for row in range(len(analysis.view) - 1)]
    content = specifications(report_html(with_columns(analysis, speaker=[*names, None])))["cluster-map"][
        "map"
    ]
    groups = content["colourings"][-1]["groups"]
    shown = [group["name"] for group in groups]
    assert len(names) == 11
    assert shown == ["others (2)", "unknown", *(f"s{row}" for row in (0, 1, 10, 2, 3, 4, 5, 6, 7))]
    colors = [group["color"] for group in groups]
    assert colors[:2] == ["var(--missing)"] * 2 and len(set(colors)) == 10


def test_the_nearest_chunks_are_those_a_search_finds(analysis: Analysis) -> None:
    view, centroids = analysis.view, analysis.run.trained.centroids
    assert centroids is not None and len(view.embeddings) == len(view) * view.num_chunks
    found = nearest_chunks(view, analysis.run.trained.front_end, analysis.run.trained.chunks, per_cluster=2)
    distances = np.linalg.norm(view.embeddings[:, None].astype(float) - centroids[None], axis=2)
    for cluster in range(len(centroids)):
        best: dict[int, tuple[float, int]] = {}
        for chunk in np.flatnonzero(distances.argmin(axis=1) == cluster):
            utterance = int(chunk) // view.num_chunks
            best[utterance] = min(best.get(utterance, (np.inf, -1)), (distances[chunk, cluster], int(chunk)))
        expected = sorted(best.values())[:2]
        mine = [near for near in found if near.cluster == cluster]
        assert [near.distance for near in mine] == pytest.approx([d for d, _ in expected], abs=1e-3)
        assert len({near.utterance for near in mine}) == len(mine)
        assert all(near.utterance == near.chunk // view.num_chunks for near in mine)


def test_times_of_chunks_lie_in_their_utterances(analysis: Analysis) -> None:
    view = analysis.view
    chunks = np.arange(len(view) * view.num_chunks)
    starts, ends = chunk_times(view, chunks, analysis.run.trained.front_end, analysis.run.trained.chunks)
    durations = np.repeat(view.table["duration_s"].to_numpy(), view.num_chunks)
    assert (starts >= 0).all() and (starts < ends).all() and (ends <= durations).all()
    assert (starts.reshape(-1, view.num_chunks)[:, 0] == 0).all()
    long = durations > 1
    np.testing.assert_allclose((ends - starts)[long], 0.992, atol=0.01)


def test_clips_are_the_chunks_of_the_recordings(analysis: Analysis) -> None:
    text = report_html(analysis, audio=True)
    players = [attributes for attributes, _ in Elements(text).named("audio")]
    near = nearest_chunks(analysis.view, analysis.run.trained.front_end, analysis.run.trained.chunks)
    assert len(players) == len(near) > 0
    assert all(player["aria-label"] for player in players)
    data = (players[0]["src"] or "").removeprefix("data:audio/wav;base64,")
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    path = analysis.view.table["path"].to_pylist()[near[0].utterance]
    whole, whole_rate = soundfile.read(path)
    assert rate == whole_rate == 16000
    expected = whole[round(near[0].start_s * rate) : round(near[0].end_s * rate)]
    middle = slice(400, -400)
    gain = 0.9 / np.abs(expected).max()
    np.testing.assert_allclose(samples[middle], expected[middle] * gain, atol=1e-3)
    assert samples[0] == 0 and "recorded speech" in text
    assert "<audio" not in report_html(analysis)


def test_audio_that_is_gone_or_too_much_is_said(
    analysis: Analysis, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = with_columns(analysis, path=[str(tmp_path / "gone.wav")] * len(analysis.view))
    near = nearest_chunks(analysis.view, analysis.run.trained.front_end, analysis.run.trained.chunks)
    cells = [row[-1] for row in nearest_table(gone.view, near, with_audio=True).rows]
    assert all(cell.startswith("no clip: ") for cell in cells)
    monkeypatch.setattr(report_nearest, "AUDIO_BUDGET_BYTES", 2 * len(clip(analysis, near[0])))
    cells = [row[-1] for row in nearest_table(analysis.view, near, with_audio=True).rows]
    assert sum(cell.startswith("<audio") for cell in cells) == 2
    assert sum(cell.startswith("omitted") for cell in cells) == len(cells) - 2


def clip(analysis: Analysis, near: report_nearest.NearChunk) -> bytes:
    path = str(analysis.view.table["path"][near.utterance])
    return base64.b64encode(clip_wav(path, near.start_s, near.end_s)) + b" " * 200


def test_a_silent_clip_stays_silent(tmp_path: Path) -> None:
    samples = np.zeros(32000, np.float32)
    samples[:100] = 0.5
    soundfile.write(tmp_path / "a.wav", samples, 16000)
    heard, _ = soundfile.read(io.BytesIO(clip_wav(str(tmp_path / "a.wav"), 1.0, 1.5)))
    assert len(heard) == 8000 and not heard.any()


def test_it_needs_neither_emotion_classes_nor_speakers(analysis: Analysis) -> None:
    count = len(analysis.view)
    bare = dataclasses.replace(
        with_columns(analysis, emotion=[None] * count, speaker=[None] * count), emotion=None
    )
    found = specifications(report_html(bare))
    assert "emotion-classes" not in found
    names = [colouring["name"] for colouring in found["cluster-map"]["map"]["colourings"]]
    assert names == ["cluster", "arousal", "dominance", "valence"]


def test_it_needs_no_clusters(analysis: Analysis) -> None:
    view = dataclasses.replace(analysis.view, chunk_clusters=None, distances=None)
    trained = dataclasses.replace(analysis.run.trained, centroids=None)
    run = dataclasses.replace(analysis.run, trained=trained)
    text = report_html(dataclasses.replace(analysis, run=run, view=view, dependencies={}, emotion=None))
    found = specifications(text)
    assert "cluster-map" in found and "sizes" not in found and "emotion-arousal" not in found
    assert found["cluster-map"]["map"]["positions"][0]["centroids"] is None


def test_an_attribute_without_labels_in_the_split_is_left_out(analysis: Analysis) -> None:
    labels = analysis.view.labels.copy()
    labels[:, 1] = np.nan
    labels[:5, 2] = np.nan
    view = dataclasses.replace(analysis.view, labels=labels)
    estimates = {
        split: {name: e for name, e in found.items() if name != "dominance"}
        for split, found in analysis.estimates.items()
    }
    changed = dataclasses.replace(
        analysis, view=view, estimates=estimates,
        dependencies={name: d for name, d in analysis.dependencies.items() if name != "dominance"},
    )  # fmt: skip
    found = specifications(report_html(changed))
    assert "scatter-dominance" not in found and "emotion-dominance" not in found
    values = found["cluster-map"]["map"]["colourings"][2]
    assert values["name"] == "valence" and values["values"].count(None) == 5 * view.num_chunks


def test_sizes_by_epoch_are_shown_when_the_run_wrote_them(run_copy: Path) -> None:
    lines = [{"epoch": e, "sizes": {"unlabeled": [1, 2, 0], "labeled": [2, 0, e + 1]}} for e in (1, 2, 3)]
    (run_copy / "clusters.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    figure = specifications(report_html(analyse(run_copy)))["sizes-by-epoch"]
    heights = [numbers(trace["y"]) for trace in figure["data"]]
    np.testing.assert_allclose(heights, [[1 / 2, 2 / 5, 1 / 3], [0, 0, 0], [1 / 2, 3 / 5, 2 / 3]])


def test_drift_is_shown_from_the_second_epoch_on_when_the_run_wrote_it(run_copy: Path) -> None:
    lines = [
        {"epoch": e, "sizes": {"labeled": [1, 1, 1]}, "drift": d} for e, d in ((1, None), (2, 0.5), (3, 0.2))
    ]
    (run_copy / "clusters.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (trace,) = specifications(report_html(analyse(run_copy)))["drift"]["data"]
    assert (trace["x"], trace["y"]) == ([2, 3], [0.5, 0.2])
    (run_copy / "clusters.jsonl").write_text(json.dumps({"epoch": 1, "sizes": {"labeled": [1, 1, 1]}}) + "\n")
    assert "drift" not in specifications(report_html(analyse(run_copy)))


def numbers(packed: dict[str, str]) -> np.ndarray:
    """An array as plotly packs it."""
    return np.frombuffer(base64.b64decode(packed["bdata"]), packed["dtype"])


@pytest.mark.parametrize("kind", ["regressor", "vae"])
def test_baselines_of_one_attribute_have_reports(folder: Path, store: Path, kind: str) -> None:
    overrides = [f"model.kind={kind}", "data.attributes=[valence]", "training.epochs=1"]
    run = make_tiny_run(folder / "runs", store, kind, overrides)
    text = report_html(analyse(run, split="Development"))
    found = specifications(text)
    assert {"losses", "validation", "scatter-valence", "cluster-map"} <= set(found)
    assert "agreement" not in found and "trained without clusters" in text


def test_the_training_split_is_called_what_it_is(run_dir: Path) -> None:
    assert "The model was trained on split train" in report_html(analyse(run_dir, split="train"))


def test_what_is_missing_is_named(run_copy: Path, tmp_path: Path) -> None:
    for path, message in ((tmp_path / "none", "no config.yaml"), (tmp_path, "not a run directory")):
        with pytest.raises(UserError, match=message):
            analyse(path)
    for name, message in (
        ("model", "model is missing"),
        ("metrics.jsonl", "metrics.jsonl is missing"),
    ):
        (run_copy / name).rename(tmp_path / "aside")
        with pytest.raises(UserError, match=message):
            analyse(run_copy)
        (tmp_path / "aside").rename(run_copy / name)
    (run_copy / "summary.json").write_text("{")
    with pytest.raises(UserError, match=r"summary\.json is not JSON"):
        analyse(run_copy)
    (run_copy / "summary.json").unlink()
    with pytest.raises(UserError, match="not finished: it has 3 of 3 epochs"):
        analyse(run_copy)


def test_a_moved_store_is_found_where_it_is_said_to_be(run_copy: Path, store: Path, tmp_path: Path) -> None:
    config = run_copy / "config.yaml"
    config.write_text(config.read_text().replace(str(store), str(tmp_path / "old")))
    with pytest.raises(UserError, match="old does not exist; give its new location with --store DIR"):
        analyse(run_copy)
    assert analyse(run_copy, store=store).run.store.path == store
    other = make_tiny_store(tmp_path / "other")
    table = json.loads((other / "store.json").read_text())
    assert table["corpus"]["num_utterances"] == 40
    with pytest.raises(UserError, match="no feature store at"):
        analyse(run_copy, store=tmp_path / "nowhere")


def test_another_store_is_refused(run_copy: Path, store: Path) -> None:
    summary = json.loads((run_copy / "summary.json").read_text())
    summary["num_utterances"]["test"] += 1
    (run_copy / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match="split test has 12 labeled utterances, but the run scored 13"):
        analyse(run_copy)


def test_the_split_must_exist_and_have_labels(run_dir: Path) -> None:
    with pytest.raises(UserError, match="no split 'test7'"):
        analyse(run_dir, split="test7")
    with pytest.raises(UserError, match="has no labels"):
        analyse(run_dir, split="unlabeled")


def test_the_command_writes_into_the_run_directory_or_where_told(
    run_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(run_copy), "--split", "validation"])
    assert f"wrote {run_copy / 'report.html'}" in capsys.readouterr().out.replace("\n", "")
    assert "split validation" in (run_copy / "report.html").read_text()
    main([str(run_copy), "--out", str(tmp_path / "mine.html"), "--audio"])
    assert "<audio" in (tmp_path / "mine.html").read_text()
    assert not list(tmp_path.glob(".partial-*"))


def test_a_place_that_cannot_be_written_is_named(analysis: Analysis, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    for out in (tmp_path / "none" / "r.html", tmp_path / "taken"):
        with pytest.raises(UserError, match=re.escape(f"cannot write report {out}")):
            write_report(analysis, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken"]


def test_progress_counts_every_utterance(run_dir: Path) -> None:
    told: list[tuple[int, int]] = []
    analyse(run_dir, split="train", progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (36, 36) and [done for done, _ in told] == sorted(done for done, _ in told)


def test_blocks_escape_text_and_keep_markup() -> None:
    table = Table(HOSTILE, ["a", HOSTILE], [["x", HOSTILE], [Markup("<b>y</b>"), "1.5"]], HOSTILE)
    plot = Plot("p", HOSTILE, HOSTILE, {"data": [], "layout": {}, "text": HOSTILE}, HOSTILE)
    text = render_page(
        HOSTILE,
        [Section("One", HOSTILE, [[table, plot]])],
        subtitle=HOSTILE,
        notices=[HOSTILE],
        tiles=[Tile(HOSTILE, HOSTILE, HOSTILE)],
        footer=HOSTILE,
    )
    elements = Elements(text)
    assert not any("onerror" in attributes or tag == "img" for tag, attributes, _ in elements.found)
    assert len(list(elements.named("script"))) == 3
    assert [body for _, body in elements.named("title")] == [HOSTILE]
    assert "<b>y</b>" in text
    assert specifications(text)["p"]["text"] == HOSTILE


def test_numbers_are_set_right_in_columns_of_numbers() -> None:
    table = Table("t", ["a", "b", "c"], [["1", "2.5", "x"], ["2", "0.1 to 0.2", "3"], ["3", "–", "4"]])
    cells = [
        attributes.get("class")
        for attributes, _ in Elements(render_page("t", [Section("s", "", [[table]])])).named("td")
    ]
    assert cells == ["number", None] * 3


def test_text_for_figures_is_shortened_and_shown_as_it_is() -> None:
    assert plot_text("<b>&amp;") == "&lt;b&gt;&amp;amp;"
    assert plot_text("x" * 100) == "x" * 59 + "…"


def css_variables(scheme: int) -> dict[str, str]:
    """Colours of the light (0) or dark (1) scheme."""
    blocks = re.findall(r":root[^{]*\{([^}]*)\}", (REPORTING / "page.css").read_text())
    return dict(re.findall(r"(--[a-z0-9-]+): (#[0-9a-f]{6})", blocks[scheme]))


def test_every_colour_is_defined_in_both_schemes(analysis: Analysis) -> None:
    sources = [path.read_text() for path in (REPORTING / "page.js", REPORTING / "page.css")]
    sources.append(json.dumps(specifications(report_html(analysis))))
    used = set(itertools.chain(*(re.findall(r"var\((--[a-z0-9-]+)\)", text) for text in sources)))
    used -= {"--share"}
    assert used <= css_variables(0).keys() == css_variables(1).keys()


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_can_be_told_from_what_they_stand_on(scheme: int) -> None:
    """Contrast as WCAG 2.2 defines it: 4.5 for text, 3 for what is drawn."""
    colors = css_variables(scheme)

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(first: str, second: str) -> float:
        low, high = sorted((luminance(colors[first]), luminance(colors[second])))
        return (high + 0.05) / (low + 0.05)

    for ground in ("--surface", "--page"):
        for text in ("--ink", "--muted", "--accent"):
            assert contrast(text, ground) >= 4.5, (text, ground)
    assert contrast("--notice-ink", "--notice") >= 4.5
    for drawn in (*(f"--c{number}" for number in range(10)), "--low", "--high"):
        assert contrast(drawn, "--surface") >= 3, drawn

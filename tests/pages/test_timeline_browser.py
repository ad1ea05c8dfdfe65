"""The timeline page in Chromium: the SVG that is drawn is compared with the rows of the CSV file."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from browser import open_browser, require_chromium
from corpus_support import voice
from model_support import small_model

from raydec.console.terminal import run_entry_point
from raydec.model.directory import save_model
from raydec.predict import main as predict_main

pytestmark = pytest.mark.browser

ATTRIBUTES = ("arousal", "valence", "dominance")
DRAWN = """
const canvas = document.querySelector("#figure-file-0 .canvas"), { xaxis, yaxis } = canvas._fullLayout;
return {
  lines: [...canvas.querySelectorAll(".scatterlayer .trace")].map(
    (trace) => [...trace.querySelectorAll("path.js-line")].map((path) => path.getAttribute("d")).join("")
  ),
  width: xaxis._length, height: yaxis._length, low: yaxis.range[0], high: yaxis.range[1],
  ticks: [...canvas.querySelectorAll(".xtick text")].map((tick) => tick.textContent),
  strips: canvas.querySelectorAll(".heatmaplayer image").length,
};
"""


def test_it_opens_without_a_word_and_without_the_network_and_draws_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_chromium()
    monkeypatch.chdir(tmp_path)
    save_model(small_model(), "model")
    Path("in").mkdir()
    name = "<img src=x onerror='window.hit=1'>.wav"
    sound = np.concatenate([voice(1, 8.0), np.zeros(16_000, np.float32), voice(2, 9.0)])
    soundfile.write(f"in/{name}", sound, 16_000)
    command = ["model", "in", "--out", "o.csv", "--windows", "1", "--plot", "p.html"]
    assert run_entry_point(predict_main, command) == 0
    with open_browser(tmp_path / "profile") as browser:
        browser.resize(1280, 900)
        browser.open(tmp_path / "p.html")
        drawn = browser.run(DRAWN)
        assert browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name)") == []
        assert browser.run("return [window.hit ?? null, document.querySelectorAll('img').length]") == [
            None,
            0,
        ]
        assert browser.run("return document.querySelector('figure h3').textContent") == f"in/{name}"
        browser.resize(390, 844)
        assert browser.run("return document.documentElement.scrollWidth") <= 390
        assert browser.console() == []
    assert drawn["strips"] == 1
    assert {"0:00", "0:10"} <= set(drawn["ticks"])
    with open("o.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18 and sum(bool(row["error"]) for row in rows) == 1
    for attribute, line in zip(ATTRIBUTES, drawn["lines"], strict=True):
        for row in rows:
            x = (float(row["start"]) + float(row["end"])) / 2 / 18 * drawn["width"]
            found = height_at(line, x)
            if row["error"]:
                assert found is None
            else:
                share = (float(row[attribute]) - drawn["low"]) / (drawn["high"] - drawn["low"])
                assert found == pytest.approx((1 - share) * drawn["height"], abs=0.02)


def height_at(path: str, x: float) -> float | None:
    """Where a drawn line passes an abscissa; None in a gap. Coordinates are pixels."""
    at = (0.0, 0.0)
    for command, numbers in re.findall(r"([MLHV])([^MLHV]*)", path):
        values = [float(number) for number in re.findall(r"-?[\d.]+", numbers)]
        points = {
            "H": lambda values=values, y=at[1]: [(value, y) for value in values],
            "V": lambda values=values, left=at[0]: [(left, value) for value in values],
        }.get(command, lambda values=values: list(zip(values[::2], values[1::2], strict=True)))()
        for place, point in enumerate(points):
            if not (command == "M" and place == 0) and at[0] < x < point[0]:
                return at[1] + (point[1] - at[1]) * (x - at[0]) / (point[0] - at[0])
            at = point
    return None

"""Reports of recorded speech in Chromium: no console messages, a few megabytes, fast first paint."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from browser import open_browser, require_chromium
from report_support import make_tiny_run
from test_report_browser import SCREENSHOTS_VARIABLE

from raydec.corpus.readers import read_corpus
from raydec.pages.analysis import analyse
from raydec.pages.run_report import write_report
from raydec.preparation import prepare_store

pytestmark = [pytest.mark.browser, pytest.mark.speech, pytest.mark.slow]


@pytest.mark.parametrize("corpus", ["emodb", "nemo"])
def test_it_opens_at_once_and_without_a_word(corpus: str, speech_dir: Path, tmp_path: Path) -> None:
    require_chromium()
    store = tmp_path / "store"
    prepare_store(read_corpus(speech_dir / corpus), store, num_workers=0, quiet=True)
    batch = ["training.batch_utterances=32", "clustering.num_clusters=10", "training.epochs=2"]
    run = make_tiny_run(tmp_path / "runs", store, corpus, batch)
    page = write_report(analyse(run))
    assert page.stat().st_size < 10_000_000
    shots = Path(os.environ.get(SCREENSHOTS_VARIABLE) or tmp_path / "screenshots")
    shots.mkdir(parents=True, exist_ok=True)
    paint = "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
    with open_browser(tmp_path / "profile") as browser:
        browser.resize(1280, 900)
        browser.console()
        paints_ms = []
        for _ in range(3):
            browser.open(page)
            paints_ms.append(browser.run(paint))
        assert browser.console() == []
        assert browser.run("return performance.getEntriesByType('resource').length") == 0
        assert min(paints_ms) < 2000
        browser.screenshot(shots / f"report-{corpus}.png")

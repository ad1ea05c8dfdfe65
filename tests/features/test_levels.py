"""Warnings about levels: DC offsets and clicks, in ``prepare`` and on recorded speech."""

from __future__ import annotations

import csv
import os
import random
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpus_support import voice

from raydec.errors import UserError
from raydec.features.audio import measure_audio
from raydec.features.levels import LevelMeter
from raydec.features.mel_front_end import MelFrontEnd
from raydec.features.store import FeatureStore
from raydec.prepare import main as prepare

RATE = 16_000


def warnings_of(samples: np.ndarray, block: int = 1000) -> tuple[str, ...]:
    meter = LevelMeter(RATE)
    for start in range(0, len(samples), block):
        meter.add(samples[start : start + block].astype(np.float32))
    return meter.levels().warnings()


def with_click(samples: np.ndarray, place: int = 8_000, height: float = 0.95) -> np.ndarray:
    clicked = samples.copy()
    clicked[place : place + 8] = height
    return clicked


def test_speech_as_it_should_be_says_nothing() -> None:
    for seed in range(5):
        assert warnings_of(voice(seed, 2.0)) == ()
        assert warnings_of(0.01 * voice(seed, 2.0)) == ()


@pytest.mark.parametrize("offset", [-0.5, 0.1, 0.5])
def test_a_dc_offset_is_told_by_its_share_of_the_peak(offset: float) -> None:
    samples = 0.3 * voice(0, 2.0) + offset
    share = abs(samples.mean()) / np.abs(samples).max()
    expected = f"a DC offset of {share:.0%} of the peak changes predictions; remove it, or use --remove-dc"
    assert warnings_of(samples) == (expected,)


def test_an_offset_too_small_to_matter_says_nothing() -> None:
    assert warnings_of(voice(0, 2.0) + 0.01) == ()


@pytest.mark.parametrize("block", [7, 160, 100_000])
def test_a_click_on_quiet_speech_is_told_with_its_place(block: int) -> None:
    (warning,) = warnings_of(with_click(0.05 * voice(0, 2.0)), block)
    assert warning.startswith("a click at 0.50 s is ") and "remove the click" in warning
    assert 20 < float(warning.split(" dB")[0].split()[-1]) < 40


def test_two_clicks_and_a_negative_one_are_told_too() -> None:
    quiet = 0.03 * voice(1, 3.0)
    assert "click" in warnings_of(with_click(with_click(quiet), 30_000))[0]
    assert "click" in warnings_of(with_click(quiet, height=-0.9))[0]


def test_a_shout_and_a_click_no_louder_than_speech_say_nothing() -> None:
    shout = 0.05 * voice(0, 2.0)
    shout[10_000:12_400] = 0.9 * np.sign(voice(1, 0.15))
    assert not any("click" in warning for warning in warnings_of(shout))
    assert warnings_of(with_click(voice(0, 2.0))) == ()


def corpus(folder: Path) -> Path:
    folder.mkdir()
    soundfile.write(folder / "fine.wav", voice(0, 1.0), RATE)
    soundfile.write(folder / "offset.wav", 0.3 * voice(1, 1.0) + 0.4, RATE)
    soundfile.write(folder / "click.wav", with_click(0.05 * voice(2, 1.0)), RATE)
    return folder


def listed(store: Path) -> dict[str, str]:
    with (store / "warnings.csv").open(newline="") as file:
        return {row["file"]: row["warning"] for row in csv.DictReader(file)}


def test_prepare_lists_what_it_hears(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare([str(corpus(tmp_path / "corpus")), str(tmp_path / "store"), "--workers", "0"])
    warnings = listed(tmp_path / "store")
    assert sorted(warnings) == ["click.wav", "offset.wav"]
    assert warnings["offset.wav"].startswith("a DC offset of ")
    shown = capsys.readouterr().out
    assert "warning: 1 × a DC offset of " in shown and "warning: 1 × a click at 0.50 s" in shown


def test_the_offset_can_be_removed_and_the_store_says_so(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "corpus")
    prepare([str(folder), str(tmp_path / "store"), "--workers", "0", "--remove-dc"])
    assert list(listed(tmp_path / "store")) == ["click.wav"]
    store = FeatureStore.open(tmp_path / "store")
    assert store.front_end.remove_dc
    samples, _ = soundfile.read(folder / "offset.wav", dtype="float32")
    soundfile.write(folder / "offset.wav", samples - samples.mean(), RATE, subtype="FLOAT")
    prepare([str(folder), str(tmp_path / "plain"), "--workers", "0"])
    row = store.utterances["utterance_id"].to_pylist().index("offset.wav")
    expected = FeatureStore.open(tmp_path / "plain").frames(row).astype(np.float32)
    np.testing.assert_allclose(store.frames(row).astype(np.float32), expected, rtol=5e-3, atol=1e-5)
    with pytest.raises(UserError, match="remove_dc True instead of False"):
        FeatureStore.open(tmp_path / "store", MelFrontEnd())


def test_parameters_of_older_stores_leave_the_offset_in() -> None:
    older = {key: value for key, value in MelFrontEnd().to_dict().items() if key != "remove_dc"}
    assert MelFrontEnd.from_dict(older) == MelFrontEnd(remove_dc=False)


@pytest.mark.speech
def test_recorded_speech_raises_no_false_alarm() -> None:
    root = os.environ.get("RAYDEC_SPEECH_DIR")
    if not root:
        pytest.skip("RAYDEC_SPEECH_DIR is not set: it names the folder of recorded emotional speech")
    files = sorted(path for path in Path(root).rglob("*") if path.suffix in (".wav", ".flac"))
    for path in random.Random(0).sample(files, 200):
        assert measure_audio(path).levels.warnings() == (), path

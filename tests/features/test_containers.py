"""Files cut short, and files whose recorder never wrote their length, in every container."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpus_support import voice

from raydec.errors import AudioError
from raydec.features.audio import measure_audio

RATE = 16_000
NO_LENGTH = "its header gives no length: the recorder never finished it; it was read to the end"


def content_of(path: Path, format: str, subtype: str | None = None, seconds: float = 8.0) -> bytearray:
    soundfile.write(path, voice(0, seconds), RATE, format=format, subtype=subtype)
    return bytearray(path.read_bytes())


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("format", ["RF64", "W64", "AIFF", "AU", "CAF", "NIST", "SVX"])
def test_a_container_cut_short_is_kept_with_a_warning(tmp_path: Path, format: str, share: float) -> None:
    path = tmp_path / "a.bin"
    content = content_of(path, format)
    whole = measure_audio(path)
    assert whole.warnings == () and len(whole.samples()) == 8 * RATE
    path.write_bytes(content[: int(len(content) * share)])
    decoded = measure_audio(path)
    assert share - 0.03 < len(decoded.samples()) / (8 * RATE) < share + 0.01
    np.testing.assert_array_equal(decoded.samples(), whole.samples()[: len(decoded.samples())])
    (warning,) = decoded.warnings
    percent = int(warning.removeprefix("cut short: ").removesuffix("% of the promised samples are there"))
    assert abs(percent - 100 * len(decoded.samples()) / (8 * RATE)) <= 1


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_stream_cut_short_is_kept_with_a_warning(tmp_path: Path, subtype: str, share: float) -> None:
    path = tmp_path / "a.ogg"
    content = content_of(path, "OGG", subtype, seconds=20.0)
    assert measure_audio(path).warnings == ()
    path.write_bytes(content[: int(len(content) * share)])
    decoded = measure_audio(path)
    assert share - 0.15 < len(decoded.samples()) / (20 * RATE) < share + 0.1
    (warning,) = decoded.warnings
    assert warning.startswith("cut short: ")


def put(content: bytearray, place: int, layout: str, value: int) -> None:
    content[place : place + struct.calcsize(layout)] = struct.pack(layout, value)


def wav(content: bytearray) -> None:
    put(content, content.index(b"data") + 4, "<I", 0)


def wav_and_riff(content: bytearray) -> None:
    wav(content)
    put(content, 4, "<I", 0)


def rf64(content: bytearray) -> None:
    put(content, content.index(b"ds64") + 16, "<Q", 0)


def wave64(content: bytearray) -> None:
    put(content, content.index(b"data\xf3") + 16, "<Q", 0)


def aiff(content: bytearray) -> None:
    put(content, content.index(b"SSND") + 4, ">I", 8)
    put(content, content.index(b"COMM") + 10, ">I", 0)


def au(content: bytearray) -> None:
    put(content, 8, ">I", 0)


def caf(content: bytearray) -> None:
    put(content, content.index(b"data") + 4, ">q", -1)


@pytest.mark.parametrize(
    ("format", "forget"),
    [("WAV", wav), ("WAV", wav_and_riff), ("WAVEX", wav), ("RF64", rf64), ("W64", wave64), ("AIFF", aiff),
     ("AU", au), ("CAF", caf)],
)  # fmt: skip
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_a_length_never_written_costs_no_samples(
    tmp_path: Path, format: str, forget: Callable[[bytearray], None], subtype: str
) -> None:
    path = tmp_path / "a.bin"
    content = content_of(path, format, subtype, seconds=1.0)
    whole = measure_audio(path).samples()
    forget(content)
    path.write_bytes(content)
    decoded = measure_audio(path)
    # A trailing chunk (libsndfile's PEAK) may be taken for a few samples.
    np.testing.assert_array_equal(decoded.samples()[: len(whole)], whole)
    assert len(decoded.samples()) - len(whole) < 16
    assert decoded.warnings == (NO_LENGTH,)


@pytest.mark.parametrize("tail", [b"", b"LIST\x04\0\0\0INFO", b"LIST\x05\0\0\0INFOx\0id3 \x02\0\0\0ab"])
def test_a_recording_that_is_empty_stays_so(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(0), RATE)
    path.write_bytes(path.read_bytes() + tail)
    with pytest.raises(AudioError, match="contains no samples"):
        measure_audio(path)

"""Audio of every kind: taken where it can be decoded, and otherwise listed by kind with the remedy."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpus_support import voice

from raydec.corpus.segments import Segment
from raydec.errors import AudioError
from raydec.features import decoders
from raydec.features.audio import load_audio, measure_audio
from raydec.features.store import FeatureStore
from raydec.prepare import main as prepare

RATE = 16_000
WITHOUT = "convert it to WAV or FLAC, or install a decoder for it: pip install 'raydec[ffmpeg]'"
needs_ffmpeg = pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="needs PyAV")

# Name, container, codec, rate, correlation with what was encoded.
ENCODED = [
    ("a.m4a", "mp4", "aac", 44_100, 0.98),
    ("a.mp4", "mp4", "aac", 16_000, 0.98),
    ("a.aac", "adts", "aac", 44_100, 0.98),
    ("a.webm", "webm", "libopus", 48_000, 0.95),
    ("a.mka", "matroska", "flac", 16_000, 0.9999),
    ("a.wma", "asf", "wmav2", 44_100, 0.98),
    ("a.amr", "amr", "libopencore_amrnb", 8_000, 0.5),  # a vocoder keeps the sound, not the wave
    ("alac.m4a", "ipod", "alac", 44_100, 0.9999),
    ("alac.caf", "caf", "alac", 44_100, 0.9999),
    ("a.wv", "wv", "wavpack", 16_000, 0.9999),
]


def encode(path: Path, format: str, codec: str, rate: int, seconds: float = 2.0) -> Path:
    import av

    bit_rates = {"libopencore_amrnb": 12_200, "wmav2": 64_000}
    stream_options = {"bit_rate": bit_rates[codec]} if codec in bit_rates else {}
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono", **stream_options)
        samples = (voice(0, seconds, rate) * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.rate, frame.pts = rate, 0
        resampler = av.AudioResampler(stream.format, "mono", rate, stream.codec_context.frame_size or 1024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def likeness(samples: np.ndarray, wanted: np.ndarray) -> float:
    """The highest correlation over the delays that encoders bring along."""
    n = min(len(samples), len(wanted)) - 4000
    return max(
        float(np.corrcoef(samples[2000 + d : 2000 + d + n], wanted[2000 : 2000 + n])[0, 1])
        for d in range(-1800, 1800, 1)
        if 2000 + d + n <= len(samples)
    )


@needs_ffmpeg
@pytest.mark.parametrize(("name", "format", "codec", "rate", "wanted"), ENCODED)
def test_ffmpeg_decodes_what_libsndfile_does_not(
    tmp_path: Path, name: str, format: str, codec: str, rate: int, wanted: float
) -> None:
    path = encode(tmp_path / name, format, codec, rate)
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.read(path)
    decoded = measure_audio(path)
    assert decoded.warnings == ()
    assert abs(len(decoded.samples()) - 2 * RATE) < 0.15 * RATE
    assert likeness(decoded.samples(), load_wav(tmp_path, rate)) > wanted


def load_wav(folder: Path, rate: int) -> np.ndarray:
    soundfile.write(folder / "plain.wav", voice(0, 2.0, rate), rate, subtype="FLOAT")
    return load_audio(folder / "plain.wav")


@needs_ffmpeg
def test_segments_and_repeated_reads_through_ffmpeg(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mka", "matroska", "flac", RATE)
    whole = load_audio(path)
    segment = measure_audio(path, segment=Segment(0.5, 1.25))
    np.testing.assert_array_equal(segment.samples(), whole[8_000:20_000])
    np.testing.assert_array_equal(np.concatenate(list(segment.blocks())), whole[8_000:20_000])
    with pytest.raises(AudioError, match="the segment starts at 9 s"):
        load_audio(path, segment=Segment(9.0))


@needs_ffmpeg
def test_a_file_for_ffmpeg_cut_short_has_its_warning(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.wma", "asf", "wmav2", 44_100, 10.0)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    decoded = measure_audio(path)
    assert 3 * RATE < len(decoded.samples()) < 6 * RATE
    assert len(decoded.warnings) == 1


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


FETCH = "not audio; the download failed; fetch it again"
HEADS = [
    ("a.m4a", b"\0\0\0\x20ftypM4A \0\0\0\0", f"an MP4 (AAC) file; {WITHOUT}"),
    ("a.3gp", b"\0\0\0\x18ftyp3gp4\0\0\0\0", f"a 3GP file; {WITHOUT}"),
    ("a.webm", b"\x1a\x45\xdf\xa3\x9fB\x86\x81", f"a WebM or Matroska file; {WITHOUT}"),
    ("a.amr", b"#!AMR\n<\x91\x17\x16", f"an AMR file; {WITHOUT}"),
    ("a.wma", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9", f"a Windows Media (WMA) file; {WITHOUT}"),
    ("m4a-inside.wav", b"\0\0\0\x20ftypM4A \0\0\0\0", f"an MP4 (AAC) file; {WITHOUT}"),
    ("page.wav", b"<!DOCTYPE html>\n<html><body>404", f"an HTML page, {FETCH}"),
    ("page2.mp3", b"\xef\xbb\xbf \n<HTML><head>", f"an HTML page, {FETCH}"),
    ("error.flac", b'<?xml version="1.0"?><Error>Denied', f"an XML document, {FETCH}"),
    ("error.ogg", b'{"error": "quota exceeded"}', f"JSON text, {FETCH}"),
    ("note.wav", b"this file was removed\n", "a text file, not audio; name the audio instead"),
    ("zipped.wav", b"PK\x03\x04\x14\0\0\0", "a ZIP archive, not audio; unpack it"),
    ("a.raw", bytes(range(200)), "headerless raw samples of unknown rate; convert them to WAV"),
    ("a.pcm", bytes(range(200)), "headerless raw samples of unknown rate; convert them to WAV"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "expected"), HEADS, ids=[name for name, _, _ in HEADS])
def test_what_cannot_be_decoded_is_called_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, expected: str
) -> None:
    monkeypatch.setattr(decoders, "ffmpeg_is_installed", lambda: False)
    with pytest.raises(AudioError) as caught:
        load_audio(write(tmp_path / name, content))
    assert caught.value.reason == expected


@needs_ffmpeg
def test_damage_in_what_ffmpeg_reads_is_a_reason(tmp_path: Path) -> None:
    for name, content in (
        ("a.m4a", b"\0\0\0\x20ftypM4A " + bytes(64)),
        ("a.webm", b"\x1a\x45\xdf\xa3" + bytes(64)),
    ):
        with pytest.raises(AudioError) as caught:
            load_audio(write(tmp_path / name, content))
        assert (
            caught.value.reason.startswith("cannot be decoded: ")
            or "contains no samples" in caught.value.reason
        )


def test_every_file_of_a_folder_is_in_the_store_or_in_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "ffmpeg_is_installed", lambda: False)
    folder = tmp_path / "mixed"
    folder.mkdir()
    kept = {"a.wav": "WAV", "a.sph": "NIST", "a.caf": "CAF", "a.aifc": "AIFF", "a.AU": "AU", "a.oga": "OGG",
            "a.snd": "AU", "a.voc": "VOC", "a.w64": "W64"}  # fmt: skip
    for name, format in kept.items():
        soundfile.write(folder / name, voice(0, 0.5), RATE, format=format)
    for name, content, _ in HEADS:
        write(folder / name, content)
    for name in ("a.aac", "a.ape", "a.awb", "a.gsm", "a.spx"):
        write(folder / name, b"\x01\x02\xfe\xff" * 50)
    names = {path.name for path in folder.iterdir()}
    prepare([str(folder), str(tmp_path / "store"), "--workers", "0"])
    stored = set(FeatureStore.open(tmp_path / "store").utterances["utterance_id"].to_pylist())
    with (tmp_path / "store" / "skipped.csv").open(newline="") as file:
        skipped = {row["file"] for row in csv.DictReader(file)}
    assert stored == set(kept)
    assert stored | skipped == names

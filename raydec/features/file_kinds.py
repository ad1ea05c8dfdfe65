"""Recognises the kind of a file by its first bytes, so that error messages can give a remedy."""

from __future__ import annotations

from dataclasses import dataclass

_CONVERT = "convert it to WAV or FLAC"
_FETCH = "the download failed; fetch it again"
_HEAD_BYTES = 4096
# Extensions of samples without any header.
_RAW_EXTENSIONS = (".raw", ".pcm", ".sw", ".sb", ".ul", ".al", ".vox", ".gsm")


@dataclass(frozen=True)
class FileKind:
    """A kind of file that soundfile does not decode.

    Attributes:
        name: with its article, ``an MP4 (AAC) file``; empty for a container that libsndfile also reads,
            because the library's own message is then more specific.
        by_ffmpeg: whether FFmpeg decodes it.
        remedy: what to do, unless FFmpeg decodes it.
    """

    name: str
    by_ffmpeg: bool = False
    remedy: str = _CONVERT


_SHARED = FileKind("", True)
# By the first bytes of a file; the first match is used.
_BEGINNINGS: tuple[tuple[bytes, FileKind], ...] = (
    (
        b"version https://git-lfs",
        FileKind("a Git LFS pointer, not the audio itself", False, "fetch it with 'git lfs pull'"),
    ),
    (b"\x1a\x45\xdf\xa3", FileKind("a WebM or Matroska file", True)),
    (b"#!AMR", FileKind("an AMR file", True)),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", FileKind("a Windows Media (WMA) file", True)),
    (b"ADIF", FileKind("an AAC file", True)),
    (b"\xff\xf1", FileKind("an AAC file", True)),
    (b"\xff\xf9", FileKind("an AAC file", True)),
    (b"MAC ", FileKind("a Monkey's Audio file", True)),
    (b"wvpk", FileKind("a WavPack file", True)),
    (b"TTA1", FileKind("a True Audio file", True)),
    (b"\x0b\x77", FileKind("an AC-3 file", True)),
    (b"FLV\x01", FileKind("a Flash video file", True)),
    (b"ajkg", FileKind("a Shorten file", True)),
    (b"NIST_1A", FileKind("a compressed NIST SPHERE file", True, "convert it to WAV with sph2pipe")),
    (b"OggS", _SHARED),
    (b"RIFF", _SHARED),
    (b"FORM", _SHARED),
    (b"caff", _SHARED),
    (b"PK\x03\x04", FileKind("a ZIP archive, not audio", False, "unpack it")),
    (b"\x1f\x8b", FileKind("a gzip archive, not audio", False, "unpack it")),
    (b"Rar!", FileKind("a RAR archive, not audio", False, "unpack it")),
    (b"7z\xbc\xaf\x27\x1c", FileKind("a 7z archive, not audio", False, "unpack it")),
    (b"%PDF", FileKind("a PDF document, not audio", False, "name the audio instead")),
    (b"\x89PNG", FileKind("a PNG image, not audio", False, "name the audio instead")),
    (b"\xff\xd8\xff", FileKind("a JPEG image, not audio", False, "name the audio instead")),
)
_RAW = FileKind("headerless raw samples of unknown rate", False, "convert them to WAV")


def file_kind(path: str) -> FileKind | None:
    """The kind of a file that soundfile does not decode, by its first bytes; None if unknown.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if head[4:8] == b"ftyp":
        return _mp4(head[8:12])
    known = next((kind for beginning, kind in _BEGINNINGS if head.startswith(beginning)), None)
    return known or _text(head) or (_RAW if path.lower().endswith(_RAW_EXTENSIONS) else None)


def ffmpeg_is_installed() -> bool:
    """Whether PyAV, which includes FFmpeg's libraries, can be imported."""
    try:
        import av  # noqa: F401
    except ImportError:
        return False
    return True


def _mp4(brand: bytes) -> FileKind:
    return FileKind("a 3GP file" if brand.startswith(b"3g") else "an MP4 (AAC) file", True)


def _text(head: bytes) -> FileKind | None:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return FileKind("an HTML page, not audio", False, _FETCH)
    if start.startswith(b"<?xml"):
        kind = "HTML page" if b"<html" in start else "XML document"
        return FileKind(f"an {kind}, not audio", False, _FETCH)
    if start.startswith((b"{", b"[")) and _is_text(head):
        return FileKind("JSON text, not audio", False, _FETCH)
    return FileKind("a text file, not audio", False, "name the audio instead") if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    if not head.strip() or b"\0" in head:
        return False
    try:
        # The last character may be cut.
        head[: len(head) - 4 if len(head) == _HEAD_BYTES else None].decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)

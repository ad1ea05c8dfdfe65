"""Shards of a feature store: planned from the corpus alone, written by any number of processes.

A finished shard has a note beside its frames (``frames-00000.json``) with their description and the
fingerprint of the plan, from which an interrupted run is resumed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import pyarrow as pa

from raydec.corpus.segments import WHOLE, Segment
from raydec.corpus.table import UNLABELED_SPLIT, Skipped, labeled_mask, segments
from raydec.errors import AudioError, UserError
from raydec.features.audio import Recording, measure_audio
from raydec.features.frame_moments import FrameMoments
from raydec.features.front_end import FrontEnd
from raydec.files.atomic import file_sha256, full_disk_explained, temporary_file, write_arrow, write_text

MAX_FLOAT16 = 65_504.0
_TARGET_SHARDS, _MIN_UTTERANCES, _MAX_UTTERANCES = 64, 16, 512

Role = Literal["labeled_train", "unlabeled", "held_out"]
ROLES: tuple[Role, ...] = ("labeled_train", "unlabeled", "held_out")
"""Use of an utterance for normalisation: statistics come from the first role that has frames, and from
held-out speech only if there is no other."""


@dataclass(frozen=True)
class PlannedUtterance:
    """An audio file, or a segment of one, to be decoded, in its state at planning time.

    Attributes:
        row: its row in the corpus table.
        path: the audio file.
        role: use of its frames for normalisation.
        size: in bytes; -1 if the file did not exist.
        modified_ns: time of its last modification.
        segment: the part of the file.
    """

    row: int
    utterance_id: str
    path: str
    role: Role
    size: int
    modified_ns: int
    segment: Segment = WHOLE


@dataclass(frozen=True)
class ShardPlan:
    """The utterances of one frames file."""

    index: int
    utterances: tuple[PlannedUtterance, ...]

    @property
    def frames_file(self) -> str:
        """Name of the frames file."""
        return f"frames-{self.index:05d}.arrow"

    @property
    def note_file(self) -> str:
        """Name of the note that marks the frames file as finished."""
        return f"frames-{self.index:05d}.json"

    def fingerprint(self, front_end: FrontEnd) -> str:
        """A hash of everything that determines the shard's content: rows, audio files, front end."""
        rows = [dataclasses.astuple(utterance) for utterance in self.utterances]
        return hashlib.sha256(
            json.dumps([self.index, rows, front_end.name, front_end.to_dict()]).encode()
        ).hexdigest()


@dataclass(frozen=True)
class StoredUtterance:
    """Location of one utterance's frames, as in ``utterances.arrow``, and its row in the corpus table."""

    row: int
    num_frames: int
    first_frame: int
    duration_s: float
    sha256: str


@dataclass(frozen=True)
class ShardResult:
    """Description of a written shard.

    Attributes:
        fingerprint: of its plan.
        num_frames: frames in the file.
        num_bytes: size of the file.
        data_offset: byte at which the frames begin.
        sha256: checksum of the file.
        stored: the utterances that could be decoded, in order.
        skipped: those that could not, with reasons.
        warnings: ``(utterance, warning)`` of utterances that were stored in spite of a problem.
        moments: per role, statistics of the stored frames.
    """

    index: int
    fingerprint: str
    num_frames: int
    num_bytes: int
    data_offset: int
    sha256: str
    stored: tuple[StoredUtterance, ...]
    skipped: tuple[Skipped, ...]
    warnings: tuple[tuple[str, str], ...]
    moments: dict[Role, FrameMoments]

    def to_json(self) -> str:
        """The text of a note; numbers are preserved exactly."""
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        content["stored"] = [dataclasses.astuple(utterance) for utterance in self.stored]
        content["skipped"] = [dataclasses.astuple(skip) for skip in self.skipped]
        content["moments"] = {role: moments.to_dict() for role, moments in self.moments.items()}
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> ShardResult:
        """The inverse of :meth:`to_json`.

        Raises:
            ValueError, TypeError, KeyError: the text is not a note of this version.
        """
        content = json.loads(text)
        content["stored"] = tuple(StoredUtterance(*values) for values in content["stored"])
        content["skipped"] = tuple(Skipped(*values) for values in content["skipped"])
        content["warnings"] = tuple((file, warning) for file, warning in content["warnings"])
        content["moments"] = {role: FrameMoments.from_dict(content["moments"][role]) for role in ROLES}
        return cls(**content)


def plan_shards(table: pa.Table) -> list[ShardPlan]:
    """Divide a corpus table into shards: about 64, of 16 to 512 utterances each, in the table's order.

    Reads the size and modification time of every audio file.
    """
    per_shard = min(max(-(-table.num_rows // _TARGET_SHARDS), _MIN_UTTERANCES), _MAX_UTTERANCES)
    columns = (table["utterance_id"].to_pylist(), table["path"].to_pylist(), _roles(table), segments(table))
    utterances = [
        PlannedUtterance(row, utterance_id, path, role, *_size_and_age(path), segment)
        for row, (utterance_id, path, role, segment) in enumerate(zip(*columns, strict=True))
    ]
    starts = range(0, len(utterances), per_shard)
    return [
        ShardPlan(index, tuple(utterances[start : start + per_shard])) for index, start in enumerate(starts)
    ]


def finished_shard(plan: ShardPlan, folder: Path, front_end: FrontEnd) -> ShardResult | None:
    """The result of an earlier run for exactly this plan, or None if the shard has to be written."""
    try:
        result = ShardResult.from_json((folder / plan.note_file).read_text(encoding="utf-8"))
        whole = (folder / plan.frames_file).stat().st_size == result.num_bytes
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return result if whole and result.fingerprint == plan.fingerprint(front_end) else None


def write_shard(plan: ShardPlan, folder: Path, front_end: FrontEnd) -> ShardResult:
    """Decode a shard's utterances and write their frames; a bad file is skipped with its reason.

    At most a few minutes of one utterance are in memory at a time. Files are written atomically.

    Raises:
        UserError: the disk is full, or this machine does not see a file that the planning machine saw.
    """
    with full_disk_explained(folder), _one_torch_thread(), temporary_file(folder) as raw:
        shard = _OpenShard(front_end, raw)
        for utterance in plan.utterances:
            shard.add(utterance)
        raw.flush()
        data_offset = write_frames(Path(raw.name), folder / plan.frames_file, front_end.width)
        frames_file = folder / plan.frames_file
        result = ShardResult(
            index=plan.index,
            fingerprint=plan.fingerprint(front_end),
            num_frames=shard.num_frames,
            num_bytes=frames_file.stat().st_size,
            data_offset=data_offset,
            sha256=file_sha256(frames_file),
            stored=tuple(shard.stored),
            skipped=tuple(shard.skipped),
            warnings=tuple(shard.warnings),
            moments=shard.moments,
        )
        write_text(folder / plan.note_file, result.to_json())
    return result


class _OpenShard:
    """The shard being written."""

    def __init__(self, front_end: FrontEnd, raw: BinaryIO) -> None:
        self.front_end = front_end
        self.raw = raw
        self.num_frames = 0
        self._checked = ("", "")
        self.stored: list[StoredUtterance] = []
        self.skipped: list[Skipped] = []
        self.warnings: list[tuple[str, str]] = []
        self.moments: dict[Role, FrameMoments] = {
            role: FrameMoments.empty(front_end.scales, front_end.width) for role in ROLES
        }

    def add(self, utterance: PlannedUtterance) -> None:
        try:
            recording = measure_audio(utterance.path, self.front_end.sample_rate, utterance.segment)
            sha256 = self._checksum(utterance)
            num_frames = self._write(recording, utterance.role)
        except AudioError as error:
            _refuse_invisible(utterance)
            self.skipped.append(Skipped(utterance.utterance_id, error.reason))
            return
        duration_s = recording.levels.num_samples / self.front_end.sample_rate
        self.stored.append(StoredUtterance(utterance.row, num_frames, self.num_frames, duration_s, sha256))
        warnings = (*recording.warnings, *recording.levels.warnings(self.front_end.remove_dc))
        self.warnings.extend((utterance.utterance_id, warning) for warning in warnings)
        self.num_frames += num_frames

    def _write(self, recording: Recording, role: Role) -> int:
        """Write a recording's frames, all or none; returns their number."""
        start, moments, num_frames = self.raw.tell(), self.moments[role], 0
        try:
            for block in self.front_end.blocks(recording):
                frames = block.clamp_(-MAX_FLOAT16, MAX_FLOAT16).half()
                self.raw.write(frames.numpy().data)
                # Converted by torch, which is several times as fast as NumPy.
                moments = moments.merge(FrameMoments.of(frames.double().numpy(), self.front_end.scales))
                num_frames += len(frames)
        except AudioError:
            self.raw.seek(start)
            self.raw.truncate()
            raise
        self.moments[role] = moments
        return num_frames

    def _checksum(self, utterance: PlannedUtterance) -> str:
        """Checksum of the file, read once for consecutive segments of the same file."""
        if self._checked[0] != utterance.path:
            try:
                self._checked = (utterance.path, file_sha256(utterance.path))
            except OSError as error:
                raise AudioError(utterance.path, f"cannot be read: {error.strerror or error}") from None
        return self._checked[1]


def _roles(table: pa.Table) -> list[Role]:
    """The role of each utterance; unlabeled training utterances count as part of the unlabeled pool."""
    pairs = zip(table["split"].to_pylist(), labeled_mask(table).to_pylist(), strict=True)
    return [_role(split, labeled) for split, labeled in pairs]


def _role(split: str, labeled: bool) -> Role:
    if split == "train":
        return "labeled_train" if labeled else "unlabeled"
    return "unlabeled" if split == UNLABELED_SPLIT else "held_out"


def _size_and_age(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return -1, 0
    return status.st_size, status.st_mtime_ns


@contextlib.contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Use one torch thread: results do not depend on the number of cores, and a worker has only one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _refuse_invisible(utterance: PlannedUtterance) -> None:
    # If it were skipped, a cluster without shared storage would silently make an empty store.
    if utterance.size >= 0 and not os.path.exists(utterance.path):
        raise UserError(
            f"{utterance.path} is not visible on {socket.gethostname()}, but was when the corpus was read; "
            "put the corpus on storage that all nodes mount, or, if the file was deleted, run again"
        )


def write_frames(raw: Path, target: Path, width: int) -> int:
    """Write raw float16 frames as an Arrow file, through a memory map; returns the frames' byte offset."""
    size = raw.stat().st_size
    mapped = np.memmap(raw, np.float16, "r") if size else np.empty(0, np.float16)
    values = pa.Array.from_buffers(pa.float16(), len(mapped), [None, pa.py_buffer(mapped)])
    frames = pa.FixedSizeListArray.from_arrays(values, width)
    write_arrow(target, pa.record_batch([frames], names=["frames"]))
    with pa.memory_map(str(target)) as source:
        base = source.read_buffer(1).address
        stored = pa.ipc.open_file(source).get_batch(0).column(0).values
        return stored.buffers()[1].address - base if size else 0

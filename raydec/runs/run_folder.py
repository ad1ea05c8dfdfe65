"""A run directory on a local or shared disk, or at any URI that pyarrow supports."""

from __future__ import annotations

import functools
import json
import math
import secrets
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from raydec.config import Config
from raydec.errors import TakenOverError, UserError
from raydec.files.atomic import write_text
from raydec.files.storage import is_uri

CONFIG_FILE, SUMMARY_FILE = "config.yaml", "summary.json"
SEARCH_FILE = "search.yaml"
OWNER_FILE = "owner"
METRICS_FILE, STEPS_FILE = "metrics.jsonl", "steps.jsonl"
CLUSTERS_FILE = "clusters.jsonl"
MEMBERS_FILE = "workers.jsonl"
PREDICTIONS_FILE = "predictions.parquet"
MODEL_FOLDER = "model"


def run_location(config: Config) -> str:
    """Path or URI of a named run's directory."""
    assert config.name is not None
    return f"{(config.storage_path or config.output_dir).rstrip('/')}/{config.name}"


def finished_summary(folder: RunFolder) -> dict[str, Any] | None:
    """The summary of a finished run, or None."""
    return folder.read_json(SUMMARY_FILE)


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        config: its settings, resolved.
        folder: the run directory, on this machine.
        summary: the content of ``summary.json``: best epoch and CCC by split and attribute.
        already_finished: whether an earlier call had finished the run, so that nothing was trained.
    """

    config: Config
    folder: Path
    summary: dict[str, Any]
    already_finished: bool

    @property
    def model(self) -> Path:
        """The model directory of the best epoch."""
        return self.folder / MODEL_FOLDER

    @property
    def ccc(self) -> dict[str, dict[str, float]]:
        """CCC of the best epoch, by split and attribute."""
        return self.summary["ccc"]


def json_line(document: Any) -> str:
    """A JSON object in one line; non-finite numbers become null."""
    return json.dumps(_finite(document), allow_nan=False) + "\n"


def _finite(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _finite(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_finite(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node


class RunFolder:
    """Reads and writes a run's files, in place on a file system or through a local copy for a URI.

    Args:
        location: a path or a URI such as ``s3://bucket/runs/name``.
        claim: the claim that the driver has :meth:`taken <take>` on the run; None for reading only.

    Attributes:
        location: the absolute path or the URI.
        claim: see above.

    Raises:
        UserError: the location cannot be reached.
    """

    def __init__(self, location: str, claim: str | None = None) -> None:
        self.claim = claim
        self._remote: fs.FileSystem | None = None
        if not is_uri(location):
            self.location = str(Path(location).absolute())
            return
        try:
            self._remote, self._remote_path = fs.FileSystem.from_uri(location)
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"storage {location} cannot be used: {error}") from None
        self.location = location

    @functools.cached_property
    def local(self) -> Path:
        """The folder where files are written; for a URI, a temporary folder that this object removes."""
        if self._remote is None:
            return Path(self.location)
        folder = Path(tempfile.mkdtemp(prefix="raydec-run-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    def create(self) -> None:
        """Create the folder.

        Raises:
            UserError: it cannot be created, for example for lack of permission.
        """
        try:
            self.local.mkdir(parents=True, exist_ok=True)
            if self._remote is not None:
                self._remote.create_dir(self._remote_path, recursive=True)
        except OSError as error:
            raise UserError(f"cannot create run directory {self.location}: {error}") from None

    def take(self) -> None:
        """Claim the run for this process and its workers; earlier writers will stop."""
        self.claim = secrets.token_hex(8)
        self.write(OWNER_FILE, self.claim + "\n")

    def check_claim(self) -> None:
        """Check that no other process has taken over the run, because two writers would corrupt it.

        This happens if the same command is run twice, or again while workers of a killed driver still run.

        Raises:
            TakenOverError: another process has taken over the run.
        """
        if self.claim is not None and (self.read(OWNER_FILE) or "").strip() != self.claim:
            raise TakenOverError(
                f"another raydec process has taken over the run in {self.location}; this one stops, its "
                "finished work is kept, and the other continues"
            )

    def write(self, name: str, text: str) -> None:
        """Write a text file, atomically."""
        write_text(self.local / name, text)

    def remove(self, name: str) -> None:
        """Remove a file, locally and at the location, if it exists."""
        (self.local / name).unlink(missing_ok=True)
        if self._remote is not None and self.read(name) is not None:
            self._remote.delete_file(f"{self._remote_path}/{name}")

    def write_json(self, name: str, document: Any) -> None:
        """Write a JSON file; see :meth:`write`."""
        self.write(name, json.dumps(_finite(document), indent=2, allow_nan=False) + "\n")

    def write_json_lines(self, name: str, objects: list[Any]) -> None:
        """Write one JSON object per line; see :meth:`write`."""
        self.write(name, "".join(json_line(item) for item in objects))

    def read(self, name: str) -> str | None:
        """A file's text, or None if it does not exist."""
        if self._remote is not None:
            try:
                with self._remote.open_input_stream(f"{self._remote_path}/{name}") as stream:
                    return bytes(stream.read()).decode()
            except FileNotFoundError:
                return None
        try:
            return (self.local / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def read_json(self, name: str) -> Any:
        """A JSON file's content, or None if it does not exist."""
        text = self.read(name)
        return None if text is None else json.loads(text)

    def sync(self) -> None:
        """Copy the local files to the location, if it is a URI."""
        if self._remote is not None:
            fs.copy_files(str(self.local), self._remote_path, destination_filesystem=self._remote)

    def fetch(self, destination: Path) -> None:
        """Copy the whole run directory to a local folder, if it is at a URI."""
        if self._remote is not None:
            destination.mkdir(parents=True, exist_ok=True)
            fs.copy_files(self._remote_path, str(destination), source_filesystem=self._remote)

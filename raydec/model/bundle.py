"""Locates the encoder of a model: in a given folder, in the model directory, or on the Hub."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from raydec.errors import UserError
from raydec.features.encoder_source import PATTERNS
from raydec.features.front_end import FrontEnd
from raydec.features.pretrained import PretrainedFrontEnd
from raydec.model.directory import load_model

BUNDLE_FOLDER = "encoder"
"""Folder of a model directory with the files of its encoder."""


def with_encoder(front_end: FrontEnd, model: Path, encoder: str | Path | None) -> FrontEnd:
    """A model's front end with the location of its encoder; one without an encoder is returned unchanged.

    Args:
        front_end: the model's front end.
        model: the model directory.
        encoder: a folder, or ``hf:owner/name``; None: the one in the model directory, if there is one. An
            encoder on the Hub is downloaded at its revision when it is first needed.

    Raises:
        UserError: the folder does not contain the model's encoder, or the model has none.
    """
    if not isinstance(front_end, PretrainedFrontEnd):
        if encoder is not None:
            raise UserError(
                f"--encoder {encoder}: {model} has no encoder; it predicts from {front_end.name} frames"
            )
        return front_end
    bundled = model / BUNDLE_FOLDER
    if encoder is None and not bundled.is_dir():
        return front_end
    return front_end.located(str(encoder or bundled))


def bundle_encoder(model: Path, encoder: str | Path | None = None) -> Path:
    """Copy the encoder of a model into its directory, so that it needs no other files.

    Args:
        model: the model directory.
        encoder: its folder; None: the Hub, at the revision that the model names.

    Returns:
        The folder with the copies.

    Raises:
        UserError: the model has no encoder or already contains its weights, the folder contains another
            encoder, or the copy cannot be written.
    """
    trained = load_model(model)
    front_end = trained.front_end
    if not isinstance(front_end, PretrainedFrontEnd):
        raise UserError(f"--bundle: {model} has no encoder; it predicts from {front_end.name} frames")
    if all(spec.model.get("encoder_tuning") == "full" for spec, _ in trained.networks):
        raise UserError(f"--bundle: {model} already contains the weights of its encoder")
    source, target = front_end.folder(encoder), model / BUNDLE_FOLDER
    partial = model / f".{BUNDLE_FOLDER}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for file in sorted(file for pattern in PATTERNS for file in source.glob(pattern)):
            shutil.copyfile(file, partial / file.name)
        shutil.rmtree(target, ignore_errors=True)
        os.rename(partial, target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from None
    return target

"""``python -m raydec.export MODEL_DIR [--onnx FILE] [--hub hf:owner/name]``: export or upload a model."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from raydec.console.arguments import Parser
from raydec.console.terminal import note, run_entry_point, waiting
from raydec.errors import UserError


def main(arguments: Sequence[str]) -> None:
    """Write the ONNX file, upload the model to the Hub, or both, and print a summary."""
    options = _parse(arguments)
    # Imported after the arguments are checked, because importing torch takes seconds.
    from raydec.model.hub import local_model, upload_model

    model = local_model(options.model)
    if options.bundle:
        from raydec.model.bundle import bundle_encoder

        note(f"copied the encoder to {bundle_encoder(model, options.encoder)}")
    if options.onnx is not None:
        _write_onnx(model, options.onnx)
    if options.hub is not None:
        with waiting("uploading"):
            address = upload_model(model, options.hub, private=options.private)
        note(f"uploaded {options.model} to {address}")


def _write_onnx(model: Path, file: Path) -> None:
    from raydec.model.directory import load_model
    from raydec.model.onnx_export import export_onnx, require_onnx

    require_onnx()
    trained = load_model(model)
    with waiting("exporting"):
        written = export_onnx(trained, file)
    note(f"wrote {file} ({written.num_bytes / 1e6:.1f} MB), outputs per chunk:")
    columns = {"scores": trained.attributes}
    columns |= {f"{group}_probabilities": classes for group, classes in trained.outputs.classes.items()}
    for name, width in written.outputs.items():
        note(f"  {name} [{width}]" + (f" ({', '.join(columns[name])})" if name in columns else ""))
    note(f"largest difference from PyTorch: {written.largest_difference:.1g}")


def _parse(arguments: Sequence[str]) -> Namespace:
    parser = Parser(
        prog="python -m raydec.export",
        description="Share a model: as one ONNX file, which maps normalised mel chunks to scores, "
        "embeddings and cluster logits and is checked against PyTorch; or on the Hugging Face Hub.",
    )
    parser.add_argument("model", metavar="MODEL_DIR", help="a model directory, or hf:owner/name")
    parser.add_argument("--onnx", type=Path, metavar="FILE", help="where to write; *.onnx")
    parser.add_argument("--hub", metavar="hf:OWNER/NAME", help="upload the model directory there")
    parser.add_argument("--private", action="store_true", help="make a new repository on the Hub private")
    parser.add_argument(
        "--bundle", action="store_true", help="copy the model's pretrained encoder into the model directory"
    )
    parser.add_argument("--encoder", metavar="DIR", help="folder of that encoder; default: the Hub")
    options = parser.parse_args(arguments)
    if options.encoder is not None and not options.bundle:
        raise UserError("--encoder names the encoder that --bundle copies; add --bundle")
    if options.onnx is None and options.hub is None and not options.bundle:
        raise UserError(
            "nothing to do; give a file with --onnx FILE, or a model name with --hub hf:owner/name"
        )
    return options


if __name__ == "__main__":
    sys.exit(run_entry_point(main))

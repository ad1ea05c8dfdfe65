"""``python -m raydec.export MODEL_DIR --onnx FILE``: a model for programs without raydec or PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from raydec.arguments import Parser
from raydec.console import err, out, run_entry_point


def main(arguments: Sequence[str]) -> None:
    """Write the ONNX file and say what it takes and gives."""
    parser = Parser(
        prog="python -m raydec.export",
        description="Write a model as one ONNX file, from normalised mel chunks to scores, embeddings and "
        "cluster logits, after ONNX Runtime has given PyTorch's outputs from it.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL_DIR", help="a model directory")
    parser.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="where to write; *.onnx")
    options = parser.parse_args(arguments)
    # torch takes seconds to import: not before the arguments are known to be good.
    from raydec.model.directory import load_model
    from raydec.model.onnx_export import export_onnx, require_onnx

    require_onnx()
    saved = load_model(options.model)
    with err.status("exporting") if err.is_terminal else nullcontext():
        written = export_onnx(saved, options.onnx)
    out.print(f"wrote {options.onnx} ({written.num_bytes / 1e6:.1f} MB), outputs per chunk:", markup=False)
    for name, width in written.outputs.items():
        columns = f" ({', '.join(saved.attributes)})" if name == "scores" else ""
        out.print(f"  {name} [{width}]{columns}", markup=False)
    out.print(f"largest difference from PyTorch: {written.largest_difference:.1g}", markup=False)


if __name__ == "__main__":
    sys.exit(run_entry_point(main))

"""``python -m raydec.convert``: published DeepEmoCluster checkpoints to a raydec model directory."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from raydec.console.arguments import Parser
from raydec.console.terminal import note, run_entry_point, waiting
from raydec.errors import UserError


def main(arguments: Sequence[str]) -> None:
    """Read the checkpoints and write the model directory."""
    parser = Parser(
        prog="python -m raydec.convert",
        description="Turn published DeepEmoCluster checkpoints (any of the three) into a model directory.",
    )
    parser.add_argument("--act", type=Path, metavar="F.pth.tar", help="checkpoint for arousal")
    parser.add_argument("--dom", type=Path, metavar="F.pth.tar", help="checkpoint for dominance")
    parser.add_argument("--val", type=Path, metavar="F.pth.tar", help="checkpoint for valence")
    parser.add_argument(
        "--norm", type=Path, required=True, metavar="DIR", help="folder of the published *_norm_*.mat files"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="MODEL_DIR", help="where to write")
    options = parser.parse_args(arguments)
    if options.act is None and options.dom is None and options.val is None:
        raise UserError("no checkpoint given; pass at least one of --act, --dom and --val")
    # Imported after the arguments are checked, because importing torch takes seconds.
    from raydec.model.directory import save_model
    from raydec.model.published import SHORT_NAMES, read_published

    given = {name: getattr(options, short) for name, short in SHORT_NAMES.items()}
    with waiting("converting"):
        model = read_published({name: path for name, path in given.items() if path is not None}, options.norm)
        save_model(model, options.out)
    note(f"wrote {options.out} ({', '.join(model.attributes)})")


if __name__ == "__main__":
    sys.exit(run_entry_point(main))

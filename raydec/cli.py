"""``raydec VERB ...``: every ``python -m raydec.VERB`` under one name."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Sequence

from raydec.console.terminal import out, run_entry_point
from raydec.errors import UserError
from raydec.version import __version__

VERBS = {
    "train": "train a model, by default on the built-in demo corpus",
    "tune": "search for good settings over many runs",
    "prepare": "decode a corpus into a feature store",
    "evaluate": "score a model on labeled splits",
    "predict": "predict the emotional attributes of recordings",
    "report": "write a run's HTML report",
    "export": "write a model as an ONNX file, or upload it",
    "convert": "turn published DeepEmoCluster checkpoints into a model directory",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit status.

    Args:
        arguments: defaults to ``sys.argv[1:]``.
    """
    return run_entry_point(_dispatch, arguments)


def available_verbs() -> dict[str, str]:
    """The verbs of this installation and what each does."""
    return {
        verb: summary
        for verb, summary in VERBS.items()
        if importlib.util.find_spec(f"raydec.{verb}") is not None
    }


def _dispatch(arguments: Sequence[str]) -> None:
    verbs = available_verbs()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        out.print(_help(verbs), markup=False)
    elif arguments[0] in ("-V", "--version"):
        out.print(f"raydec {__version__}", markup=False)
    elif arguments[0] in verbs:
        # Import only this verb, because others may load slow libraries.
        importlib.import_module(f"raydec.{arguments[0]}").main(arguments[1:])
    else:
        close = difflib.get_close_matches(arguments[0], verbs, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"the verbs are {', '.join(verbs)}"
        raise UserError(f"raydec has no verb {arguments[0]!r}; {hint}")


def _help(verbs: dict[str, str]) -> str:
    width = max(map(len, verbs))
    lines = [f"  {verb:<{width}}  {summary}" for verb, summary in verbs.items()]
    return "\n".join(
        [
            "usage: raydec VERB ...",
            "",
            *lines,
            "",
            "raydec VERB --help explains a verb; --version prints the version.",
        ]
    )

"""Progress of a run on the terminal: one line per epoch, and a spinner."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from rich.table import Table

from raydec.config import Config
from raydec.console.terminal import err, note, out
from raydec.files.storage import is_uri
from raydec.runs.run_folder import METRICS_FILE, MODEL_FOLDER, RunFolder, RunResult, run_location

POLL_S, REMOTE_POLL_S = 0.5, 5.0


@contextmanager
def following(config: Config) -> Iterator[None]:
    """Print a line for every epoch as soon as it is in the run directory, whichever process trains."""
    stop = threading.Event()
    follower = threading.Thread(target=_follow, args=(config, stop), daemon=True)
    follower.start()
    try:
        yield
    finally:
        stop.set()
        follower.join()


def _follow(config: Config, stop: threading.Event) -> None:
    folder = RunFolder(run_location(config))
    shown = len(_lines(folder))
    begun = time.monotonic()
    total = config.training.epochs
    status = err.status("starting workers") if err.is_terminal else nullcontext()
    with status as spinner:
        while True:
            # Checked before reading, so that the last epoch's line is not missed.
            last_look = stop.is_set()
            for text in (lines := _lines(folder))[shown:]:
                if shown == 0:
                    out.print(_header(config), markup=False)
                out.print(_row(json.loads(text), config), markup=False)
                shown += 1
            shown = min(shown, len(lines)) if lines else shown
            if spinner is not None and shown < total:
                spinner.update(f"epoch {shown + 1}/{total}, {time.monotonic() - begun:.0f} s")
            if last_look:
                return
            stop.wait(REMOTE_POLL_S if is_uri(folder.location) else POLL_S)


def _lines(folder: RunFolder) -> list[str]:
    return (folder.read(METRICS_FILE) or "").splitlines()


def _score_columns(config: Config) -> dict[str, str]:
    """The most important metrics, by the heading of their column."""
    columns = {name: f"ccc_{name}" for name in config.data.attributes}
    return columns | ({"macro-F1": "f1_emotion", "UAR": "uar_emotion"} if config.data.emotions else {})


def _title(config: Config) -> str:
    return f"  {'CCC' if config.data.attributes else 'scores'} on {config.data.validation_name}: "


def _header(config: Config) -> str:
    names = " ".join(f"{name[:9]:>9}" for name in _score_columns(config))
    return (
        f"{'epoch':>9}{_title(config)}{names}   "
        f"{'loss':>7} {'NMI':>5} {'empty':>5} {'largest':>7}  {'kmeans':>7} {'epoch':>7} {'chunks/s':>8}"
    )


def _row(metrics: Mapping[str, Any], config: Config) -> str:
    scores = " ".join(f"{metrics[f'valid/{name}']:9.4f}" for name in _score_columns(config).values())
    indent = " " * len(_title(config))
    loss = metrics.get("train/loss_emotion", metrics.get("train/loss_class"))
    return (
        f"{metrics['epoch']:>4}/{config.training.epochs:<4}{indent}{scores}   "
        f"{_number(loss, '7.4f')} "
        f"{_number(metrics.get('cluster/nmi_previous'), '5.2f')} "
        f"{_number(metrics.get('cluster/empty'), '5.0f')} "
        f"{_number(metrics.get('cluster/largest_share'), '7.2f')}  "
        f"{_number(metrics.get('time/kmeans_s'), '6.2f')}s "
        f"{metrics['time/epoch_s']:6.1f}s {metrics['throughput/chunks_per_s']:8.0f}"
    )


def _number(value: float | None, form: str) -> str:
    """A number in its column, or a dash if the epoch has none."""
    return f"{'-':>{form.split('.')[0]}}" if value is None else f"{value:{form}}"


def print_result(result: RunResult) -> None:
    """The scores of each split, and the paths of what was written."""
    config = result.config
    if result.already_finished:
        note(f"run {config.name} had already finished; its results:")
    if result.summary.get("stopped_early"):
        note(
            f"stopped after epoch {result.summary['epochs']} of {config.training.epochs}: "
            f"{config.training.patience} epochs without a better score (training.patience)"
        )
    corpus = " on the synthetic demo corpus" if result.summary.get("synthetic") else ""
    measure = "CCC" if config.data.attributes else "Scores"
    title = f"{measure} of {config.name}{corpus}, epoch {result.summary['best_epoch']}"
    table = Table(title=title, title_justify="left")
    table.add_column("split")
    table.add_column("utterances", justify="right")
    columns = _score_columns(config)
    for name in columns:
        table.add_column(name, justify="right")
    for split, ccc in result.summary["ccc"].items():
        scores = {f"ccc_{name}": value for name, value in ccc.items()}
        scores |= result.summary.get("classes", {}).get(split, {})
        count = str(result.summary["num_utterances"][split])
        table.add_row(split, count, *(f"{scores[metric]:.4f}" for metric in columns.values()))
    out.print(table)
    out.print(f"run directory   {result.folder}", markup=False)
    out.print(f"model           {result.folder / MODEL_FOLDER}", markup=False)
    out.print(f"TensorBoard     tensorboard --logdir {result.folder}", markup=False)

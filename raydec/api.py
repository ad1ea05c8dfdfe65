"""raydec as a library: the commands as functions with typed results.

If an argument is wrong, every function raises :class:`raydec.errors.UserError` with the message that the
command would print. Settings are a mapping whose keys may be dotted, a YAML file, or keyword arguments, and
are validated as on the command line::

    raydec.train({"data.store": "stores/mine", "training.epochs": 30}, name="mine")
    raydec.train("mine.yaml", training={"epochs": 30})

If the process has already started Ray, as in a notebook, that Ray is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from raydec.config import Config, load_config

if TYPE_CHECKING:
    from raydec.corpus.readers import Format
    from raydec.corpus.table import Corpus
    from raydec.features.front_end import FrontEnd
    from raydec.features.store_writer import StoreSummary
    from raydec.inference.prediction_output import PredictionCounts
    from raydec.runs.run_folder import RunResult
    from raydec.search.events import SearchEvents
    from raydec.search.plan import SearchPlan
    from raydec.search.results import SearchResults

Settings = Config | Mapping[str, Any] | str | Path | None
"""A config, a mapping from keys to values, or the path of a YAML file."""

C = TypeVar("C", bound=Config)


def prepare(
    corpus: str | Path,
    store: str | Path,
    *,
    labels: str | Path | None = None,
    audio: str | Path | None = None,
    unlabeled: Sequence[str | Path] = (),
    format: Format = "auto",
    label_range: tuple[float, float] = (1, 7),
    remove_dc: bool = False,
    encoder: str | None = None,
    layers: str = "last",
    frames: bool = False,
    tune: bool = False,
    front_end: FrontEnd | None = None,
    num_workers: int | None = None,
    address: str | None = None,
    restart: bool = False,
    on_corpus: Callable[[Corpus], None] = lambda corpus: None,
) -> StoreSummary:
    """Turn a corpus into a feature store, or resume an interrupted attempt.

    Args:
        corpus: folder of the corpus.
        store: folder of the feature store.
        labels: label file; None: found by the format.
        audio: audio folder; None: found by the format.
        unlabeled: folders of further speech, used without labels.
        format: layout of the corpus, or the name of a registered reader.
        label_range: range of valid labels; rows outside it are skipped.
        remove_dc: subtract each utterance's mean.
        encoder: pretrained encoder that computes the features: a folder or ``hf:owner/name[@revision]``.
        layers: hidden layers of the encoder.
        frames: store the encoder's whole hidden states, not only their statistics by chunk.
        tune: store audio, so that training can tune the encoder.
        front_end: computes the features; replaces the choice of ``remove_dc`` and the encoder's arguments.
        num_workers: number of parallel Ray tasks; 0: this process, without Ray; None: depends on the size.
        address: Ray cluster to join; None: ``RAY_ADDRESS``, else this machine.
        restart: discard an earlier store.
        on_corpus: called with the corpus once it has been read.

    Returns:
        What is in the store, and what was skipped and why.

    Raises:
        UserError: the corpus or a file cannot be used, the folder has other content, or the disk is full.
    """
    from raydec.corpus.readers import read_corpus
    from raydec.preparation import prepare_store

    front_end = front_end or _front_end(encoder, layers, frames, tune, remove_dc)
    read = read_corpus(
        Path(corpus),
        labels=None if labels is None else Path(labels),
        audio=None if audio is None else Path(audio),
        unlabeled=[Path(folder) for folder in unlabeled],
        format=format,
        label_range=label_range,
    )
    on_corpus(read)
    return prepare_store(
        read, Path(store), num_workers=num_workers, address=address, restart=restart, front_end=front_end
    )


def _front_end(encoder: str | None, layers: str, frames: bool, tune: bool, remove_dc: bool) -> FrontEnd:
    if encoder is None:
        from raydec.features.mel_front_end import MelFrontEnd

        return MelFrontEnd(remove_dc=remove_dc)
    if tune:
        from raydec.features.waveform_front_end import waveform_front_end

        return waveform_front_end(encoder, layers)
    from raydec.features.encoder_front_end import encoder_front_end

    return encoder_front_end(encoder, layers, pooled=not frames)


def train(
    settings: Settings = None,
    /,
    *,
    watch: Callable[[Config], AbstractContextManager[object]] | None = None,
    **more: Any,
) -> RunResult:
    """Train one model, or resume an unfinished run of the same name.

    Args:
        settings: the run's settings; without a feature store, it trains on the synthetic demo corpus.
        watch: returns a context manager that shows progress; called with the resolved settings.
        more: further settings, which override those in ``settings``.

    Returns:
        The run directory, and the scores of its best epoch.

    Raises:
        UserError: a setting is wrong, the store lacks required data, or the run exists with other settings.
    """
    from raydec.experiment import resolve, train_run

    config = resolve(_config(settings, more, Config))
    with nullcontext() if watch is None else watch(config):
        return train_run(config)


def search(
    settings: Settings = None,
    /,
    *,
    watch: Callable[[SearchPlan, int], AbstractContextManager[SearchEvents]] | None = None,
    **more: Any,
) -> SearchResults:
    """Search for good settings with Ray Tune, or resume an unfinished search of the same name.

    Args:
        settings: the search's settings, with a section ``search``.
        watch: returns a context manager that shows progress; called with the plan and the number of trials
            that have ended before.
        more: further settings, which override those in ``settings``.

    Returns:
        The ranked settings, and the best run.

    Raises:
        UserError: a setting is wrong, the trials do not fit on the machines, or the search exists
            with other settings.
        KeyboardInterrupt: it was interrupted; finished work is kept.
    """
    from raydec.experiment import search_run
    from raydec.search.config import TuneConfig

    return search_run(_config(settings, more, TuneConfig), watch)


def predict(
    model: str | Path,
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    plot: str | Path | None = None,
    num_workers: int | None = None,
    address: str | None = None,
    **options: Any,
) -> PredictionCounts:
    """Predict recordings into a table; an interrupted call is resumed.

    To predict a few recordings in memory, use ``raydec.load(model).predict``.

    Args:
        model: a model directory, or ``hf:owner/name``.
        paths: audio files, folders, or lists of files.
        out: a ``.csv`` or ``.parquet`` file.
        plot: an ``.html`` file for a timeline of each recording; needs ``window_s`` or ``segments``.
        num_workers: number of processes; 0: this process, without Ray; None: depends on the number of files.
        address: Ray cluster to join; None: ``RAY_ADDRESS``, else this machine.
        options: arguments of :func:`raydec.inference.recordings.predict_recordings`, such as ``window_s``.

    Raises:
        UserError: a path or the model cannot be used, or ``out`` was made with other options.
    """
    from raydec.inference.recordings import predict_recordings
    from raydec.ray_runtime.predict import Spread

    if plot is not None:
        from raydec.pages.timeline import check_timeline, write_timeline

        page = check_timeline(plot, options.get("window_s"), options.get("segments"))
        options["on_rows"] = lambda table: write_timeline(table, page)
    return predict_recordings(model, paths, out, run=Spread(num_workers, address), **options)


def report(
    run: str | Path,
    *,
    out: str | Path | None = None,
    split: str | None = None,
    store: str | Path | None = None,
    audio: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the HTML report of a finished run.

    Args:
        run: the run directory.
        out: where to write; default: ``report.html`` in the run directory.
        split: the split to show in detail; default: the first test split, or ``validation``.
        store: the run's feature store, if it was moved.
        audio: embed a second of audio for each utterance nearest to a centroid.
        progress: called with the number of predictions so far, and the total.

    Returns:
        The path of the file.

    Raises:
        UserError: the run is not finished, the store has changed, or the file cannot be written.
    """
    from raydec.pages.analysis import analyse
    from raydec.pages.run_report import report_path, write_report

    if Path(run).is_dir():
        report_path(run, out)
    analysis = analyse(run, store=store, split=split, progress=progress)
    return write_report(analysis, out, audio=audio)


def _config(settings: Settings, more: Mapping[str, Any], schema: type[C]) -> C:
    if isinstance(settings, schema) and not more:
        return settings
    if isinstance(settings, Config):
        settings = settings.model_dump(mode="json")
    path = settings if isinstance(settings, str | Path) else None
    given = settings if isinstance(settings, Mapping) else {}
    config = load_config(path, schema=schema, settings=[given, more])
    assert isinstance(config, schema)
    return config

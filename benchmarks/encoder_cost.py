"""The cost of encoding an hour of speech: ``python -m benchmarks.encoder_cost ENCODER WORK_DIR AUDIO_DIR…``.

ENCODER is a folder with a Whisper encoder in the format of ``transformers``. The same clips, a random sample
from every AUDIO_DIR, go through

* raydec: what ``prepare --encoder`` does for each clip, from the file to checksummed chunk statistics; and
  the whole command with ``--workers 0``, whose start (imports, weights) is the same for any number of clips,
* bare loops of soundfile, soxr and ``transformers`` that keep the last hidden states and nothing else: each
  clip at its true length (the position table cut), clips of equal length in batches, and padded to 30 s, the
  default of ``transformers``,
* CTranslate2, where it is installed, at true length and padded.

All take turns, in a different order in every round. Seconds are per hour of speech, without padding.
"""

from __future__ import annotations

import importlib.util
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.prepare_rate import Timing, command, shards_alone, timed
from benchmarks.report import argument_parser, machine, shown, spread, table, write_results

RATE = 16_000
BATCH = 8


class Bare:
    """The bare loops over ``transformers``."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoFeatureExtractor, AutoModel

        self.extract = AutoFeatureExtractor.from_pretrained(folder)
        self.encoder = AutoModel.from_pretrained(folder, dtype=torch.float32).eval().encoder

    def features(self, clips: list[np.ndarray], padding: str) -> Any:
        """Log mels, ``[clip, band, frame]``, at true length (``do_not_pad``) or padded to 30 s."""
        return self.extract(clips, sampling_rate=RATE, return_tensors="pt", padding=padding).input_features

    def at_true_length(self, clips: list[np.ndarray]) -> None:
        """Last hidden states of clips of equal length."""
        import torch
        from torch.nn.functional import gelu

        encoder = self.encoder
        with torch.inference_mode():
            hidden = gelu(encoder.conv1(self.features(clips, "do_not_pad")))
            hidden = gelu(encoder.conv2(hidden)).permute(0, 2, 1)
            hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
            for layer in encoder.layers:
                hidden = layer(hidden, None)
            encoder.layer_norm(hidden).numpy()

    def one_by_one(self, files: list[Path]) -> None:
        """Each clip alone."""
        for path in files:
            self.at_true_length([read(path)])

    def in_batches(self, files: list[Path]) -> None:
        """Clips of equal length together; the others alone. Cutting to whole frames makes lengths equal."""
        clips = sorted((whole_frames(read(path)) for path in files), key=len)
        for _, group in groupby(clips, key=len):
            equal = list(group)
            for start in range(0, len(equal), BATCH):
                self.at_true_length(equal[start : start + BATCH])

    def padded(self, files: list[Path]) -> None:
        """Each clip alone, padded to 30 s."""
        import torch

        for path in files:
            with torch.inference_mode():
                self.encoder(self.features([read(path)], "max_length")).last_hidden_state.numpy()


def read(path: Path) -> np.ndarray:
    """One channel at 16 kHz."""
    import soundfile
    import soxr

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return soxr.resample(samples.mean(axis=1), rate, RATE)


def whole_frames(samples: np.ndarray) -> np.ndarray:
    """Without the samples after the last whole hidden state."""
    return samples[: max(len(samples) // 320, 1) * 320]


def translated(bare: Bare, folder: Path, work: Path, threads: int) -> Callable[[str, list[Path]], None]:
    """A loop over CTranslate2 in float32, checked against ``transformers`` on 30 s of noise."""
    import ctranslate2
    import torch
    from ctranslate2.converters.transformers import WhisperLoader
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    # The format requires a decoder, which is not used, and the special tokens of Whisper.
    model = WhisperForConditionalGeneration(WhisperConfig.from_pretrained(folder, decoder_layers=1))
    model.model.encoder.load_state_dict(bare.encoder.state_dict())
    spec = WhisperLoader().get_model_spec(model)
    words = (
        "endoftext",
        "startoftranscript",
        "translate",
        "transcribe",
        "notimestamps",
        "nospeech",
        "a",
        "b",
    )
    spec.register_vocabulary([f"<|{word}|>" for word in words])
    spec.validate()
    spec.optimize(quantization="float32")
    (work / "ctranslate2").mkdir(exist_ok=True)
    spec.save(str(work / "ctranslate2"))
    whisper = ctranslate2.models.Whisper(str(work / "ctranslate2"), intra_threads=threads)

    def encode(features: Any) -> np.ndarray:
        return np.asarray(whisper.encode(ctranslate2.StorageView.from_array(features.contiguous().numpy())))

    noise = bare.features([np.random.default_rng(0).normal(size=30 * RATE).astype(np.float32)], "max_length")
    with torch.inference_mode():
        expected = bare.encoder(noise).last_hidden_state.numpy()
    assert np.abs(encode(noise) - expected).max() < 0.01 * expected.std(), "CTranslate2 gives other states"

    def loop(padding: str, files: list[Path]) -> None:
        for path in files:
            encode(bare.features([read(path)], padding))

    return loop


def turns(options: Any, corpus: Path, files: list[Path]) -> Iterator[tuple[str, int, Callable[[], Timing]]]:
    """Name, number of clips and work of each turn."""
    import torch

    from raydec.features.encoder_front_end import encoder_front_end

    bare = Bare(options.encoder)
    some = files[: options.padded]
    front_end = encoder_front_end(str(options.encoder))
    torch.set_num_threads(1)  # as prepare does
    alone = partial(shards_alone, corpus, options.work_dir / "alone", len(files), front_end)
    yield "raydec, 1 thread", len(files), alone

    def on(threads: int, work: Callable[[list[Path]], None], clips: list[Path]) -> Timing:
        torch.set_num_threads(threads)
        return timed(lambda: work(clips))

    for threads in options.threads:
        suffix = f"{threads} thread{'s' * (threads > 1)}"
        yield f"bare, true length, {suffix}", len(files), partial(on, threads, bare.one_by_one, files)
        yield f"bare, equal lengths, {suffix}", len(files), partial(on, threads, bare.in_batches, files)
        yield f"bare, 30 s, {suffix}", len(some), partial(on, threads, bare.padded, some)
        if importlib.util.find_spec("ctranslate2"):
            loop = translated(bare, options.encoder, options.work_dir, threads)
            true, full = partial(loop, "do_not_pad"), partial(loop, "max_length")
            yield f"CTranslate2, true length, {suffix}", len(files), partial(on, threads, true, files)
            yield f"CTranslate2, 30 s, {suffix}", len(some), partial(on, threads, full, some)
    store = options.work_dir / "store"
    prepare = [sys.executable, "-m", "raydec.prepare", str(corpus), str(store), "--restart", "--workers", "0"]
    whole = partial(command, [*prepare, "--encoder", str(options.encoder)])
    yield "`prepare --encoder --workers 0`, with its start", len(files), whole


def write_corpus(folders: list[Path], corpus: Path, number: int) -> list[Path]:
    """Copy the same number of clips of each folder into a corpus; an existing one is reused."""
    chooser = random.Random(0)
    found = [path for folder in folders for path in chooser.sample(sorted(folder.iterdir()), number)]
    chooser.shuffle(found)
    corpus.mkdir(parents=True, exist_ok=True)
    names = [f"{place:04d}{path.suffix}" for place, path in enumerate(found)]
    for name, path in zip(names, found, strict=True):
        if not (corpus / name).exists():
            shutil.copyfile(path, corpus / name)
    rows = [f"{name},train,{4 + place % 2}\n" for place, name in enumerate(names)]
    (corpus / "manifest.csv").write_text("file,split,arousal\n" + "".join(rows))
    return [corpus / name for name in names]


def main() -> None:
    """Measure in turns, print and write the page."""
    parser = argument_parser(__doc__)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("audio", type=Path, nargs="+")
    parser.add_argument("--clips", type=int, default=40, help="of each folder")
    parser.add_argument("--padded", type=int, default=15, help="clips of a turn with padding to 30 s")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    options.work_dir = options.work_dir.absolute()
    corpus = options.work_dir / "corpus"
    files = write_corpus(options.audio, corpus, options.clips)
    seconds = [len(read(path)) / RATE for path in files]
    measured = list(turns(options, corpus, files))
    rounds: list[dict[str, Timing]] = []
    for number in range(options.rounds + 1):  # the first, which warms up, does not count
        order = random.Random(number).sample(measured, len(measured))
        rounds.append({name: work() for name, _, work in order})
        print(f"{time.strftime('%H:%M:%S')} round {number} of {options.rounds}", flush=True)
    hours = {name: sum(seconds[:clips]) / 3600 for name, clips, _ in measured}
    numbers = {"machine": machine(), "hours": hours, "clips_s": spread(seconds), "rounds": rounds[1:]}
    text = page(numbers, len(files), sys.argv[4:])
    print(text)
    print(write_results("encoder-cost", text, numbers))


def page(numbers: dict[str, Any], num_clips: int, arguments: list[str]) -> str:
    """The page in Markdown."""
    hours, rounds = numbers["hours"], numbers["rounds"]
    ours = next(iter(hours))

    def per_hour(one: dict[str, Timing], name: str, key: str) -> float:
        return one[name][key] / hours[name]

    rows = [
        [
            name,
            *(shown(spread([per_hour(one, name, key) for one in rounds]), 0) for key in ("cpu_s", "wall_s")),
            shown(spread([per_hour(one, name, "cpu_s") / per_hour(one, ours, "cpu_s") for one in rounds])),
        ]
        for name in hours
    ]
    clips_s = numbers["clips_s"]
    options = " ".join(argument for argument in arguments if "/" not in argument)
    return "\n".join(
        [
            f"# The cost of encoding an hour of speech, {time.strftime('%Y-%m-%d')}",
            "",
            f"`python -m benchmarks.encoder_cost ENCODER WORK_DIR AUDIO_DIR… {options}`",
            "",
            f"{numbers['machine']}. {num_clips} clips of {clips_s['min']:.1f} to {clips_s['max']:.1f} s, "
            f"median {clips_s['median']:.1f} s, {60 * hours[ours]:.1f} minutes in all. Median and range of "
            f"{len(rounds)} rounds, seconds per hour of speech; raydec's speed is the last column times that "
            "of the loop.",
            "",
            table(["", "CPU seconds", "seconds by the clock", "CPU beside raydec's"], rows),
        ]
    )


if __name__ == "__main__":
    main()

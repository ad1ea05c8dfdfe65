"""The model card, the ``README.md`` of a model directory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from raydec.files.markdown import markdown_table

_SYNTHETIC_WARNING = (
    "> **Trained on raydec's built-in synthetic corpus.** It demonstrates the software only: it has "
    "learned nothing about human emotion and must not be used on people.\n"
)

_LIMITS = """\
## Limits

Scores are means over an utterance's chunks, in the scale of the training labels but not clipped to it.
They describe how annotators perceive speech, not what the speaker felt. The model may transfer poorly to
languages, microphones and speaking styles that it was not trained on: measure it on your own labeled data
(`python -m raydec.evaluate`) before relying on it.
"""

_BY_SPEAKER = (
    "\nFeatures were normalised by speaker. The scores above are for speakers whose mean features are known. "
    "Use `--speaker-means` to provide them; without them, predictions are less accurate.\n"
)


def model_card(config: Mapping[str, Any]) -> str:
    """Markdown text for the ``README.md`` of a model directory.

    Args:
        config: the content of its ``config.json``.
    """
    extra = config["extra"]
    attributes = [name for network in config["networks"] for name in network["attributes"]]
    groups = {group: names for network in config["networks"] for group, names in _classes(network).items()}
    predicted = [*attributes, *(f"{group} ({_listing(names)})" for group, names in groups.items())]
    sections = [
        "---\nlibrary_name: raydec\ntags:\n- speech-emotion-recognition\n- deep-clustering\n---\n",
        f"# {extra.get('run') or 'raydec model'}\n",
        f"Predicts {_listing(predicted)} of recorded speech from {_input(config)}, in chunks of about a "
        "second, with [raydec](https://github.com/raydec/raydec).\n",
        _SYNTHETIC_WARNING if extra.get("synthetic") else "",
        _scores_section(attributes, groups, extra.get("scores")),
        _use_section(config),
        _network_section(config),
        _origin_section(extra),
        _LIMITS,
    ]
    return "\n".join(section for section in sections if section)


def _classes(network: Mapping[str, Any]) -> Mapping[str, Iterable[str]]:
    """Groups of classes that a network predicts; older models have none."""
    return network.get("classes", {})


def _input(config: Mapping[str, Any]) -> str:
    if config["front_end"] in ("encoder", "waveform"):
        features = config["features"]
        layers = _listing(str(layer) for layer in features["layers"])
        tuning = config["networks"][0]["model"].get("encoder_tuning", "frozen")
        how = {"frozen": "", "lora": ", tuned by adapters", "full": ", tuned"}[tuning]
        return f"hidden states {layers} of {features['encoder']} ({features['weights_sha256'][:16]}){how}"
    scale = config["chunks"]["scale"]
    return f"mel-spectrograms ({scale})" if config["front_end"] == "mel" else str(config["front_end"])


def _scores_section(
    attributes: Iterable[str],
    groups: Iterable[str],
    scores: Mapping[str, Mapping[str, float | None]] | None,
) -> str:
    if not scores:
        return "## Scores\n\nNot measured.\n"
    lines = ["## Scores\n"]
    if names := list(attributes):
        lines.append("Concordance correlation coefficient (CCC) over utterances.\n")
        rows = [[split, *(_number(found.get(name)) for name in names)] for split, found in scores.items()]
        lines.append(markdown_table(["split", *names], rows))
    for group in groups:
        measures = {"macro-F1": f"f1_{group}", "unweighted average recall": f"uar_{group}"}
        lines.append(f"\nClasses ({group}) over utterances, with 95% intervals over speakers.\n")
        rows = [
            [split, *(_with_interval(found, key) for key in measures.values())]
            for split, found in scores.items()
        ]
        lines.append(markdown_table(["split", *measures], rows))
    return "\n".join(lines) + "\n"


def _with_interval(scores: Mapping[str, float | None], key: str) -> str:
    value, low, high = (_number(scores.get(key + end)) for end in ("", "_low", "_high"))
    return f"{value} ({low} to {high})"


def _use_section(config: Mapping[str, Any]) -> str:
    by_speaker = config["chunks"].get("speaker_normalization") == "mean"
    return (
        "## Use\n\n"
        "```sh\npython -m raydec.predict THIS_FOLDER recordings/ --out predictions.csv\n```\n\n"
        "```python\nimport raydec\n\n"
        'print(raydec.load("THIS_FOLDER").predict("recording.wav"))\n```\n\n'
        "Loading runs no code from this folder: weights are safetensors, the rest is JSON and npy.\n"
        + (_BY_SPEAKER if by_speaker else "")
    )


def _network_section(config: Mapping[str, Any]) -> str:
    chunks = config["chunks"]
    lines = ["## Network\n"]
    for network in config["networks"]:
        model = network["model"]
        means, stds = (_listing(map(_number, network[key])) for key in ("label_mean", "label_std"))
        scale = f"; label mean {means}, standard deviation {stds}" if network["attributes"] else ""
        lines.append(
            f"- {_listing([*network['attributes'], *_classes(network)])}: {model['kind']}, temporal layer "
            f"{model['temporal']}, {model['pooling']} pooling, {network['num_clusters']} clusters{scale}"
        )
    lines.append(
        f"- input: {chunks['num_chunks']} chunks of {chunks['chunk_frames']} frames, {_input(config)}, "
        f"z-normalised, clipped to ±{chunks['clip']:g}"
    )
    return "\n".join(lines) + "\n"


def _origin_section(extra: Mapping[str, Any]) -> str:
    facts = {
        "run": extra.get("run"),
        "training corpus": extra.get("corpus"),
        "epoch": extra.get("best_epoch"),
        "raydec version": extra.get("raydec_version"),
        "source": extra.get("source"),
    }
    lines = [f"- {name}: {value}" for name, value in facts.items() if value is not None]
    return "## Origin\n\n" + "\n".join(lines) + "\n" if lines else ""


def _listing(words: Iterable[str]) -> str:
    return ", ".join(words)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"

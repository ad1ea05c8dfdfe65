"""Location and properties of a pretrained encoder, from its files. Torch-free."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

from raydec.errors import UserError
from raydec.files.atomic import file_sha256
from raydec.files.hub import is_hub_name, parse_hub_name, reason

Family = Literal["hubert", "wav2vec2", "wavlm", "whisper"]
FAMILIES: tuple[Family, ...] = get_args(Family)
SAMPLE_RATE = 16_000
REQUIREMENTS = ("transformers", "safetensors")
CONFIG_FILE, EXTRACTOR_FILE = "config.json", "preprocessor_config.json"
PATTERNS = (CONFIG_FILE, EXTRACTOR_FILE, "*.safetensors", "*.safetensors.index.json")


@dataclass(frozen=True)
class EncoderSource:
    """The files of one encoder, as ``transformers`` reads them.

    Attributes:
        folder: where they are.
        name: ``hf:owner/name``, or the folder's name.
        revision: commit on the Hub; None for a folder.
        family: ``model_type`` of its config, one of :data:`FAMILIES`.
        num_layers: Transformer layers.
        hidden_size: values per hidden state.
        weights_sha256: of its safetensors file; of several, of their checksums in the files' order.
        config: content of its config file.
        extractor: content of the file of its feature extractor.
    """

    folder: Path
    name: str
    revision: str | None
    family: str
    num_layers: int
    hidden_size: int
    weights_sha256: str
    config: dict[str, Any]
    extractor: dict[str, Any]


def require_encoders() -> None:
    """Check that the ``encoders`` extra is installed.

    Raises:
        UserError: it is not; the message says how to install it.
    """
    missing = [name for name in REQUIREMENTS if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f'pretrained encoders need {", ".join(missing)}; install with: pip install "raydec[encoders]"'
        )


def find_encoder(name: str) -> EncoderSource:
    """Read an encoder's properties; the files of ``hf:owner/name[@revision]`` are downloaded if needed.

    Raises:
        UserError: the extra is not installed, there is no such encoder, its family or sample rate is not
            supported, or its weights are not safetensors.
    """
    require_encoders()
    folder, revision = _fetch(name) if is_hub_name(name) else (Path(name), None)
    config = _read_json(folder / CONFIG_FILE, name)
    family = config.get("model_type")
    if family not in FAMILIES:
        raise UserError(
            f"encoder {name} is a {family!r}; raydec runs {', '.join(FAMILIES)} as transformers stores them"
        )
    extractor = _read_json(folder / EXTRACTOR_FILE, name)
    rate = extractor.get("sampling_rate")
    if rate != SAMPLE_RATE:
        raise UserError(f"encoder {name} takes audio of {rate} Hz; raydec feeds encoders {SAMPLE_RATE} Hz")
    num_layers, hidden_size = _sizes(config, family, name)
    return EncoderSource(
        folder=folder.absolute(),
        name=name.partition("@")[0] if revision else folder.absolute().name,
        revision=revision,
        family=family,
        num_layers=num_layers,
        hidden_size=hidden_size,
        weights_sha256=_weights_sha256(folder, name),
        config=config,
        extractor=extractor,
    )


def _sizes(config: dict[str, Any], family: str, name: str) -> tuple[int, int]:
    keys = ("encoder_layers", "d_model") if family == "whisper" else ("num_hidden_layers", "hidden_size")
    sizes = [config.get(key) for key in keys]
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        raise UserError(f"encoder {name}: {CONFIG_FILE} must give {keys[0]} and {keys[1]} as integers")
    return int(sizes[0] or 0), int(sizes[1] or 0)


def _fetch(name: str) -> tuple[Path, str]:
    repository, revision = parse_hub_name(name)
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=list(PATTERNS)))
    except Exception as error:  # errors come from several libraries and have no common base class
        raise UserError(
            f"cannot fetch encoder {name}: {reason(error)}; name a local folder instead"
        ) from None
    return folder, folder.name


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"encoder {name} cannot be read: {path}: {error.strerror or error}; name a folder that "
            "transformers' save_pretrained wrote, with its feature extractor, or hf:owner/name"
        ) from None
    except ValueError:
        raise UserError(f"encoder {name}: {path} is not JSON") from None
    if not isinstance(document, dict):
        raise UserError(f"encoder {name}: {path} must contain a JSON object")
    return document


def _weights_sha256(folder: Path, name: str) -> str:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(
            f"encoder {name} has no *.safetensors in {folder}; save it with transformers' "
            "save_pretrained, which writes them; pickled weights are not read"
        )
    sums = [file_sha256(file) for file in files]
    return sums[0] if len(sums) == 1 else sha256(" ".join(sums).encode()).hexdigest()

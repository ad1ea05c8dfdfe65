"""All settings of raydec: frozen pydantic models, read from YAML and dotted overrides.

OmegaConf merges a file with ``dotted.key=value`` overrides, and the result is validated once here, so later
code gets only validated values. ``None`` means unset: the default is chosen by the code that uses the value.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import OmegaConf
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from raydec.config_files import expand_home, read_settings
from raydec.config_keys import changed_keys as changed_keys
from raydec.config_keys import explain_validation, keys_of, text_keys, tolerated
from raydec.config_keys import flatten as flatten
from raydec.errors import UserError
from raydec.splits import UNLABELED_SPLIT, OptionalSplits, Splits, joint_name
from raydec.worker_count import WorkerCount

LocationText = Annotated[str, BeforeValidator(expand_home)]
"""A path or URI; a leading ``~`` is expanded."""
OptionalLocation = Annotated[str | None, BeforeValidator(expand_home)]

Attribute = Literal["arousal", "dominance", "valence"]
ATTRIBUTES: tuple[Attribute, ...] = ("arousal", "dominance", "valence")

NO_AGREEMENT = "X"
"""MSP-Podcast's class for utterances on which the annotators did not agree; not among ``all`` classes."""

PUBLISHED_CHANNELS = (32, 32, 64, 64, 128, 128, 128)
"""Channels of the published network's convolutions."""


class Section(BaseModel):
    """Base of every config section: immutable, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _tolerate(cls, given: Any) -> Any:
        return tolerated(cls, given)


class FoldsConfig(Section):
    """Division of the labeled utterances into folds."""

    by: str = Field("speaker", description="column of the store; utterances with the same value share a fold")
    k: int | None = Field(None, ge=3, description="number of folds; unset: one for each value")


class DataConfig(Section):
    """The training data."""

    store: OptionalLocation = Field(
        None, description="feature store made by raydec.prepare; unset: demo corpus"
    )
    encoder: OptionalLocation = Field(
        None,
        description="pretrained encoder of a store made with prepare --tune: a folder, or hf:owner/name; "
        "unset: the folder that was used then, or the Hub",
    )
    attributes: tuple[Attribute, ...] = Field(
        ("arousal", "dominance", "valence"), description="emotional attributes to learn; [] for none"
    )
    emotions: tuple[str, ...] = Field(
        (),
        description="emotion classes to learn, as the corpus spells them, or all: every class of the "
        "training splits except X (no agreement)",
    )
    labeled_utterances: int | None = Field(
        None,
        ge=2,
        description="number of training utterances whose labels are used, drawn evenly over speakers; the "
        "others are treated as unlabeled; unset: all",
    )
    labeled_seed: int = Field(99, description="seed of the draw of the labeled utterances")
    unlabeled_utterances: int | None = Field(
        None, ge=0, description="unlabeled utterances to use; 0: fully supervised, unset: all"
    )
    unlabeled_seed: int = Field(99, description="seed of the draw of the unlabeled subset")
    train_split: Splits = Field(("train",), description="labeled split to train on, or a list of splits")
    validation_split: Splits = Field(
        ("validation",), description="split that chooses the best epoch, or a list of splits to be pooled"
    )
    test_split: OptionalSplits = Field(
        None, description="split scored at the end, or a list; unset: all named test* without another use"
    )

    folds: FoldsConfig | None = Field(
        None,
        description="divide the labeled utterances into splits fold0, fold1 ..., for example "
        "{by: speaker, k: 5}; unset: the store's own splits",
    )

    @property
    def validation_name(self) -> str:
        """The name of the pooled validation splits: ``validation``, or ``fold0+fold1`` for several."""
        return joint_name(self.validation_split)

    @model_validator(mode="after")
    def _disjoint(self) -> DataConfig:
        parts = {
            "data.train_split": self.train_split,
            "data.validation_split": self.validation_split,
            "data.test_split": self.test_split or (),
        }
        for key, names in parts.items():
            if UNLABELED_SPLIT in names:
                raise ValueError(
                    f"{key} names {UNLABELED_SPLIT!r}, which is used without labels; name a labeled split"
                )
        for (first, ours), (second, theirs) in itertools.combinations(parts.items(), 2):
            shared = [name for name in ours if name in theirs]
            if shared:
                raise ValueError(
                    f"{first} and {second} both name {', '.join(map(repr, shared))}; "
                    "training, validation and test must not share utterances: name other splits"
                )
        return self


class FeatureConfig(Section):
    """Conversion of stored frames to network input; defaults are those of the store's front end."""

    scale: Literal["power", "log", "plain"] | None = Field(
        None,
        description="features before z-normalisation: mel power, as published, or its logarithm; plain: as "
        "stored; unset: power for mel frames, plain for an encoder's features",
    )
    clip: float | None = Field(
        None, gt=0, description="normalised features are clipped to +-clip; unset: 3 for mel frames"
    )
    num_chunks: int | None = Field(None, ge=2, description="chunks per utterance; unset: 11 for mel frames")
    chunk_frames: int | None = Field(
        None, ge=1, description="frames per chunk; unset: 62 for mel frames, which are 0.992 s"
    )
    speaker_normalization: Literal["none", "mean"] = Field(
        "none",
        description="mean: subtract the mean over all utterances of the speaker, labeled or not",
    )


class ModelConfig(Section):
    """The network."""

    kind: Literal["deepemocluster", "regressor", "autoencoder", "vae"] = Field(
        "deepemocluster", description="DeepEmoCluster or one of the paper's baselines"
    )
    init: OptionalLocation = Field(
        None, description="model directory, or hf:owner/name, to start from; unset: random weights"
    )
    init_normalization: Literal["keep", "refit"] = Field(
        "keep", description="with init: normalise features and labels as that model, or refit to the store"
    )
    encoder_tuning: Literal["frozen", "lora", "full"] = Field(
        "frozen",
        description="what is trained of the encoder of a store made with prepare --tune: nothing, low-rank "
        "adapters, or all weights",
    )
    lora_rank: int = Field(8, ge=1, description="rank of the adapters of encoder_tuning=lora")
    temporal: Literal["none", "gru", "cnn", "transformer", "triplet"] = Field(
        "none", description="temporal layer over the chunk sequence"
    )
    pooling: Literal["mean", "attentive"] = Field(
        "mean",
        description="predictions of an utterance: the mean over its chunks, as published, or from the "
        "attention-weighted mean and standard deviation of the chunk vectors",
    )
    channels: tuple[int, ...] | None = Field(
        None,
        min_length=1,
        description="channels of the convolutions, of which the last five halve their input; "
        "unset: the published seven, or 16,32,48,64 for recipe=modern",
    )
    frame_pooling: Literal["flatten", "statistics"] | None = Field(
        None,
        description="input of cnn_out: the whole feature map, as published, or its mean and standard "
        "deviation over time; unset: flatten for recipe=reference, else statistics",
    )
    initialization: Literal["published", "kaiming"] | None = Field(
        None,
        description="initial weights: standard deviation 0.01 in linear layers, or variance 2 / inputs in "
        "all layers; unset: published for recipe=reference, else kaiming",
    )
    embedding_dim: int = Field(256, ge=1, description="width of cnn_out and of both branches")
    dropout: float = Field(0.5, ge=0, lt=1, description="dropout after cnn_out")
    temporal_dropout: float = Field(0.3, ge=0, lt=1, description="dropout inside the temporal layer")
    latent_dim: int = Field(256, ge=1, description="bottleneck of the autoencoder baselines")

    @property
    def needs_whole_utterances(self) -> bool:
        """Whether the network sees all chunks of an utterance together."""
        return self.temporal != "none" or self.pooling != "mean"


class TrainingConfig(Section):
    """The schedule, the optimisers and the selection rule."""

    epochs: int = Field(50, ge=1, description="epochs")
    patience: int | None = Field(
        None, ge=1, description="stop after this many epochs without a better validation score; unset: never"
    )
    batch_utterances: int | None = Field(
        None,
        ge=1,
        description="utterances per global batch, over all workers; unset: 64 for recipe=reference, else 16 "
        "for up to 2,000 labeled utterances, 32 for up to 10,000, 64 beyond",
    )
    recipe: Literal["reference", "modern"] = Field(
        "modern", description="the published system, or settings that were measured to score better"
    )
    batches: Literal["chunks", "utterances"] | None = Field(
        None,
        description="batches of single chunks, as published, or of several chunks per utterance; "
        "unset: chunks for recipe=reference, else utterances",
    )
    chunks_per_utterance: int | None = Field(
        None,
        ge=1,
        description="chunks per utterance with batches=utterances; unset: 5, or all with a temporal layer or "
        "attentive pooling",
    )
    random_offsets: bool | None = Field(
        None,
        description="with batches=utterances: chunks begin at random positions; "
        "unset: false for recipe=reference, else true",
    )
    draws: Literal["balanced", "shuffled"] | None = Field(
        None,
        description="an epoch draws evenly over clusters, as published, or uses everything once; "
        "unset: balanced for recipe=reference, else shuffled",
    )
    schedule: Literal["two_stage", "pooled"] | None = Field(
        None,
        description="first an unlabeled, then a labeled stage, as published, or one pass over both; "
        "unset: two_stage for recipe=reference, else pooled",
    )
    precision: Literal["fp32", "bf16", "auto"] = Field(
        "auto", description="auto: bf16 on GPUs that support it"
    )
    freeze_emotion_head: Literal["auto", "permanent", "unlabeled_stage", "never"] = Field(
        "auto",
        description="when the emotion head is frozen: from the first unlabeled stage on (published code), "
        "during unlabeled stages only, or never; auto: permanent for recipe=reference, else unlabeled_stage",
    )
    learning_rate: float = Field(2e-3, gt=0, description="peak learning rate of recipe=modern")
    encoder_learning_rate: float | None = Field(
        None,
        gt=0,
        description="peak learning rate of an encoder; unset: 1e-4 for encoder_tuning=lora, 1e-5 for full",
    )
    gradient_checkpointing: bool = Field(
        True,
        description="save memory when tuning an encoder: recompute its activations in the backward pass",
    )
    weight_decay: float = Field(1e-2, ge=0, description="weight decay of recipe=modern")
    warmup_fraction: float = Field(0.1, ge=0, lt=1, description="share of steps warmed up, recipe=modern")
    gradient_clip: float = Field(1.0, gt=0, description="largest gradient norm, recipe=modern")
    sgd_learning_rate: float = Field(1e-3, gt=0, description="SGD over the network, recipe=reference")
    adam_learning_rate: float = Field(5e-4, gt=0, description="Adam over the network, recipe=reference")
    head_learning_rate: float = Field(0.05, gt=0, description="SGD of the top layer, recipe=reference")
    selection: Literal["best", "last"] | None = Field(
        None,
        description="the epoch whose model is kept: the one with the best validation score, or the last; "
        "unset: best with recipe=reference, patience, classes only, or over 2,000 utterances, else last",
    )
    calibration: Literal["none", "spread"] | None = Field(
        None,
        description="after training, scale predictions until those for unlabeled (else validation) "
        "utterances vary as much as training labels; unset: none for recipe=reference, else spread",
    )
    keep_checkpoints: int = Field(2, ge=1, description="number of checkpoints kept")

    @model_validator(mode="after")
    def _patience_needs_scores(self) -> TrainingConfig:
        if self.patience is not None and self.selection == "last":
            raise ValueError(
                "training.patience waits for a better epoch, but training.selection=last keeps the last one; "
                "unset one of them"
            )
        return self


class ClusteringConfig(Section):
    """K-means and the cluster head."""

    num_clusters: int = Field(10, ge=2, description="number of clusters")
    backend: Literal["auto", "cuml", "torch", "sklearn"] = Field("auto", description="K-means library")
    head: Literal["auto", "reset", "align"] = Field(
        "auto",
        description="a new cluster head in each stage, or labels aligned to the previous clusters; "
        "auto: reset for recipe=reference, else align",
    )
    max_iterations: int = Field(20, ge=1, description="maximal number of Lloyd iterations")
    tolerance: float = Field(1e-4, ge=0, description="stop when inertia falls by less than this share")
    label_weight: float | None = Field(
        None,
        ge=0,
        description="weight of labels in K-means, relative to embeddings of total variance 1; "
        "0: none, as published; unset: 0 for recipe=reference, else 1",
    )
    max_fit_rows: int | None = Field(
        None, ge=1, description="fit on a sample of this many chunks; unset: all"
    )


class LossConfig(Section):
    """Weights of the loss terms."""

    cluster_weight: float | None = Field(
        None,
        ge=0,
        description="weight of cross-entropy on pseudo-labels; "
        "unset: 1 for recipe=reference, else 1 / ln clustering.num_clusters",
    )
    emotion_weight: float = Field(1.0, ge=0, description="weight of 1 - CCC")
    class_weight: float = Field(1.0, ge=0, description="weight of cross-entropy on emotion classes")
    balance_classes: bool = Field(
        False, description="weight emotion classes inversely to their number of training utterances"
    )
    reconstruction_weight: float = Field(1.0, ge=0, description="weight of the autoencoder's squared error")
    kl_weight: float = Field(1e-3, ge=0, description="weight of the VAE's divergence")
    triplet_weight: float = Field(1.0, ge=0, description="weight of the triplet loss, model.temporal=triplet")
    triplet_margin: float = Field(1.0, gt=0, description="margin of the triplet loss")
    ccc_level: Literal["chunk", "utterance"] | None = Field(
        None,
        description="the training CCC is over chunks, as published, or over utterances, as in evaluation; "
        "unset: chunk for recipe=reference, else utterance",
    )
    ccc: Literal["exact", "reference"] = Field(
        "exact", description="population moments, or the published mix of population and sample moments"
    )
    rater_weight: float = Field(
        0.0,
        ge=0,
        description="weight labels in the training CCC by the agreement of their annotators: "
        "(1 + squared error / mean squared error) ** -rater_weight; 0: all labels equally",
    )


class RayConfig(Section):
    """How the run is spread over machines."""

    num_workers: WorkerCount = Field(
        None,
        description="training workers; 0: in this process without Ray; unset: one per GPU, else 1 (0 for the "
        "trials of a search); [2,4]: as many as fit, at least 2",
    )
    use_gpu: Literal["auto"] | bool = Field("auto", description="auto: if the cluster has GPUs")
    cpus_per_worker: int | None = Field(
        None, ge=1, description="CPU threads per worker; unset: an even share of the cluster"
    )
    address: str | None = Field(None, description="Ray cluster to join; unset: RAY_ADDRESS or a local one")
    max_failures: int = Field(3, ge=0, description="worker-group restarts before giving up")
    placement_timeout_s: int = Field(
        900, ge=1, description="seconds to wait for free resources, including new nodes, for the workers"
    )
    collective_timeout_s: int = Field(300, ge=1, description="timeout of a collective, in seconds")
    num_cpus: int | None = Field(None, ge=1, description="CPUs of a local Ray; unset: all")
    object_store_gib: float | None = Field(
        None, gt=0, description="size of a local Ray's object store in GiB"
    )
    niceness: int | None = Field(
        None,
        ge=0,
        le=19,
        description="niceness that a local Ray adds to its workers; unset: RAY_worker_niceness, else 0",
    )
    dashboard: Literal["auto"] | bool = Field(
        "auto", description="whether a local Ray has its dashboard; auto: for searches"
    )


class TrackingConfig(Section):
    """Experiment trackers, in addition to the run directory."""

    services: tuple[Literal["wandb", "mlflow"], ...] = Field(
        (), description="trackers that record every epoch; each needs the extra of the same name"
    )
    project: str = Field("raydec", min_length=1, description="project or experiment in the trackers")
    embedding_epochs: int = Field(
        5, ge=0, description="epochs between maps of embeddings in TensorBoard; 0: none"
    )


class Config(Section):
    """A complete, validated run configuration."""

    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="run name; unset: derived from the store's name",
    )
    output_dir: LocationText = Field("runs", description="folder of run directories")
    storage_path: OptionalLocation = Field(
        None,
        description="shared storage for run directories, any URI Ray accepts; "
        "unset: $RAYDEC_STORAGE, else output_dir",
    )
    seed: int = Field(31, ge=0, description="seed of all randomness")
    data: DataConfig = Field(DataConfig(), description="")
    features: FeatureConfig = Field(FeatureConfig(), description="")
    model: ModelConfig = Field(ModelConfig(), description="")
    training: TrainingConfig = Field(TrainingConfig(), description="")
    clustering: ClusteringConfig = Field(ClusteringConfig(), description="")
    loss: LossConfig = Field(LossConfig(), description="")
    ray: RayConfig = Field(RayConfig(), description="")
    tracking: TrackingConfig = Field(TrackingConfig(), description="")

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if len(set(self.data.attributes)) != len(self.data.attributes):
            raise ValueError(f"data.attributes names an attribute twice: {', '.join(self.data.attributes)}")
        if len(set(self.data.emotions)) != len(self.data.emotions):
            raise ValueError(f"data.emotions names a class twice: {', '.join(self.data.emotions)}")
        if not self.data.attributes and not self.data.emotions:
            raise ValueError(
                "data.attributes and data.emotions are both empty; name an attribute, or at least two classes"
            )
        if len(self.data.emotions) == 1 and self.data.emotions != ("all",):
            raise ValueError(
                f"data.emotions={self.data.emotions[0]}: a single class cannot be learned; name two, or all"
            )
        if self.loss.rater_weight and not self.data.attributes:
            raise ValueError(
                f"loss.rater_weight={self.loss.rater_weight:g} only affects attributes, but "
                "data.attributes is empty; set it to 0"
            )
        if self.model.kind != "deepemocluster" and self.model.temporal == "triplet":
            raise ValueError("model.temporal=triplet needs model.kind=deepemocluster")
        if self.model.encoder_tuning != "frozen" and self.training.recipe == "reference":
            raise ValueError(
                f"model.encoder_tuning={self.model.encoder_tuning} needs training.recipe=modern, because the "
                "optimisers of the other recipe have no learning rate for an encoder"
            )
        if self.model.needs_whole_utterances and self.training.chunks_per_utterance is not None:
            key = "pooling" if self.model.temporal == "none" else "temporal"
            raise ValueError(
                f"training.chunks_per_utterance={self.training.chunks_per_utterance}: "
                f"model.{key}={getattr(self.model, key)} needs all chunks of an utterance; leave it unset"
            )
        return self

    @property
    def head_mode(self) -> Literal["reset", "align"]:
        """Handling of the cluster head between stages, with ``auto`` resolved by the recipe."""
        if self.clustering.head != "auto":
            return self.clustering.head
        return "reset" if self.training.recipe == "reference" else "align"

    @property
    def schedule(self) -> Literal["two_stage", "pooled"]:
        """The schedule, resolved by the recipe if unset."""
        return self.training.schedule or ("two_stage" if self.training.recipe == "reference" else "pooled")

    @property
    def freeze_mode(self) -> Literal["permanent", "unlabeled_stage", "never"]:
        """When the emotion head is frozen, with ``auto`` resolved by the recipe."""
        if self.training.freeze_emotion_head != "auto":
            return self.training.freeze_emotion_head
        return "permanent" if self.training.recipe == "reference" else "unlabeled_stage"


# Defaults of `python -m raydec.train` without a feature store: the published network and schedule, with few
# epochs, so that two CPU cores finish in minutes.
DEMO_DEFAULTS: dict[str, Any] = {
    "data": {"attributes": ["arousal", "dominance", "valence"]},
    "features": {"scale": "log"},
    "training": {"epochs": 5, "batch_utterances": 8, "recipe": "modern"},
    "clustering": {"num_clusters": 10},
}


def load_config(
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    schema: type[Config] = Config,
    settings: Sequence[Mapping[str, Any]] = (),
) -> Config:
    """Merge defaults, a YAML file, mappings and ``dotted.key=value`` overrides into one validated config.

    Args:
        path: a YAML file, or None.
        overrides: for example ``["training.epochs=3", "data.attributes=[arousal]"]``; values are YAML.
        schema: the pydantic model to validate against (``tune`` extends it with ``search``).
        settings: mappings whose keys may be dotted; later mappings override earlier ones.

    Raises:
        UserError: unreadable file, malformed override, unknown key (the message suggests the nearest known
            key), or a value out of range.
    """
    return config_from_dict(read_settings(path, settings, overrides, text_keys(schema)), schema)


def config_from_dict(user: Mapping[str, Any], schema: type[Config] = Config) -> Config:
    """Validate a nested mapping as a config, with the demo defaults if it names no feature store.

    Raises:
        UserError: as :func:`load_config`.
    """
    data = user.get("data")
    uses_demo = not (isinstance(data, Mapping) and data.get("store"))
    base = DEMO_DEFAULTS if uses_demo else {}
    merged = OmegaConf.to_container(OmegaConf.merge(OmegaConf.create(base), OmegaConf.create(dict(user))))
    try:
        return schema.model_validate(merged)
    except ValidationError as error:
        raise UserError(explain_validation(error, schema)) from None


def config_yaml(config: Config) -> str:
    """The complete, resolved config as YAML text."""
    return OmegaConf.to_yaml(OmegaConf.create(config.model_dump(mode="json")))


def iterate_keys(schema: type[BaseModel] = Config) -> Iterator[tuple[str, str, Any, str]]:
    """Yield ``(dotted key, type, default, one-line description)`` of every setting."""
    return keys_of(schema)

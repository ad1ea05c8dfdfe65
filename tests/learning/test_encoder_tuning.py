"""Pretrained encoders tuned inside the network, on CPUs with tiny encoders."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from corpus_support import many, voice, write_corpus
from encoder_support import by_transformers, tiny_encoder
from safetensors.torch import load_file

from raydec import cli
from raydec.config import Config, ModelConfig, TrainingConfig, load_config
from raydec.errors import UserError
from raydec.experiment import resolve, train_run
from raydec.features.audio import measure_audio
from raydec.features.chunking import cut
from raydec.features.encoder_front_end import encoder_front_end
from raydec.features.store import FeatureStore
from raydec.features.waveform_front_end import WaveformFrontEnd, waveform_front_end
from raydec.inference.prediction import load
from raydec.learning.clusterer import LocalClusterer
from raydec.learning.data import select_data
from raydec.learning.optimizers import Optimizers
from raydec.learning.selection import open_store
from raydec.learning.training import NullRecorder, Training
from raydec.learning.worker import DistributedWorker, LocalWorker, Worker
from raydec.model.assembly import build_network
from raydec.model.directory import load_model
from raydec.model.network import Network
from raydec.preparation import prepare_store

FAMILIES = ("hubert", "wav2vec2", "wavlm", "whisper")
SETTINGS = (
    "data.attributes=[arousal]",
    "model.embedding_dim=16",
    "clustering.num_clusters=3",
    # Chunks of 0.4 s; batches of 3 utterances do not split evenly over two workers.
    "features.num_chunks=3",
    "features.chunk_frames=20",
    "training.chunks_per_utterance=2",
    "training.batch_utterances=3",
    "training.epochs=2",
    "training.encoder_learning_rate=1e-2",
    "ray.num_workers=0",
    "ray.cpus_per_worker=1",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, tiny encoders, and a store of its audio for each, named after the family."""
    folder = tmp_path_factory.mktemp("tuning")
    spoken = [*many(7), *many(4, "validation", "v"), *many(3, "test1", "t"), *many(3, "unlabeled", "x")]
    corpus = write_corpus(
        folder / "audio", [dataclasses.replace(one, seconds=2 * one.seconds) for one in spoken]
    )
    for family in FAMILIES:
        encoder = tiny_encoder(folder / "encoders" / family, family)
        front_end = waveform_front_end(str(encoder), "last" if family == "whisper" else "all")
        prepare_store(corpus, folder / family, num_workers=0, quiet=True, front_end=front_end)
    features = encoder_front_end(str(folder / "encoders/wavlm"))
    prepare_store(corpus, folder / "features", num_workers=0, quiet=True, front_end=features)
    return folder


def config(folder: Path, store: str, name: str, *settings: str) -> Config:
    given = [*SETTINGS, f"data.store={folder / store}", f"output_dir={folder / 'runs'}", f"name={name}"]
    return resolve(load_config(None, [*given, *settings]))


def network_for(front_end: WaveformFrontEnd, tuning: str, **model: Any) -> Network:
    settings = ModelConfig(embedding_dim=8, encoder_tuning=tuning, lora_rank=2, **model)
    network = build_network(settings, front_end, front_end.usual_format, 2, 3)
    network.initialize(torch.Generator().manual_seed(0), "kaiming")
    network.encoder.read_pretrained()
    return network


def speech_weights(network: Network) -> dict[str, torch.Tensor]:
    """The encoder as it runs, by the names that transformers gives its weights."""
    held = network.encoder.speech._held[0]
    weights = dict(held.named_parameters())
    return {name.replace(".base_layer", ""): value for name, value in weights.items() if "lora_" not in name}


def pretrained_weights(folder: Path, family: str) -> dict[str, torch.Tensor]:
    from transformers import AutoModel

    network = AutoModel.from_pretrained(folder / "encoders" / family, dtype=torch.float32)
    return dict((network.encoder if family == "whisper" else network).named_parameters())


# The store


def test_the_store_holds_the_audio(folder: Path) -> None:
    store = FeatureStore.open(folder / "wavlm")
    row = int(store.rows("train")[3])
    samples, rate = soundfile.read(store.utterances["path"][row].as_py(), dtype="float32")
    assert rate == 16_000 and store.front_end.hop_s == 0.02
    stored = store.frames(row).reshape(-1)
    assert len(samples) - 320 < len(stored) <= len(samples)
    np.testing.assert_allclose(stored, samples[: len(stored)], rtol=2**-11, atol=1e-7)


def test_long_recordings_are_stored_in_blocks_and_short_ones_filled_up(folder: Path, tmp_path: Path) -> None:
    front_end = FeatureStore.open(folder / "wavlm").front_end
    for num_samples in (2 * 960_000 + 17, 2 * 960_000 + 320, 100):
        samples = np.random.default_rng(0).uniform(-0.5, 0.5, num_samples).astype(np.float32)
        soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
        recording = measure_audio(tmp_path / "a.wav")
        assert recording.is_kept == (num_samples == 100)
        blocks = [block.numpy() for block in front_end.blocks(recording)]
        expected = np.zeros(max(320, num_samples // 320 * 320), np.float32)
        expected[: min(num_samples, len(expected))] = samples[: len(expected)]
        np.testing.assert_array_equal(np.concatenate(blocks).reshape(-1), expected)
        assert max(len(block) for block in blocks) <= 3_001


# The forward pass


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tuning", ["frozen", "lora", "full"])
def test_training_begins_where_a_store_of_features_would(folder: Path, family: str, tuning: str) -> None:
    """Against transformers run on one chunk at a time, and the head on its statistics."""
    front_end = waveform_front_end(str(folder / "encoders" / family), "all")
    network = network_for(front_end, tuning)
    chunks = cut(front_end.frames(voice(3, 2.0)), dataclasses.replace(front_end.usual_format, num_chunks=3))
    expected = []
    for chunk in chunks:
        states = by_transformers(folder / "encoders" / family, chunk.reshape(-1).numpy())
        expected += [np.concatenate([np.mean(x, 0), np.std(x, 0)]) for x in map(np.asarray, states)]
    statistics = torch.from_numpy(np.stack(expected)).view(3, -1)
    torch.testing.assert_close(network.encoder.statistics(chunks), statistics, rtol=1e-4, atol=1e-4)

    # A worker may have no rows.
    assert network.encoder.statistics(chunks[:0]).shape == (0, statistics.shape[1])
    with torch.no_grad():
        assert network.encoder.statistics(chunks[:0]).shape == (0, statistics.shape[1])

    center, spread = statistics.mean(0), statistics.std(0) + 0.1
    network.encoder.mean.copy_(center)
    network.encoder.std.copy_(spread)
    of_features = encoder_front_end(str(folder / "encoders" / family), "all")
    head = build_network(ModelConfig(embedding_dim=8), of_features, of_features.usual_format, 2, 3)
    own = network.state_dict()
    head.load_state_dict({name: own[name.replace("encoder.", "encoder.head.")] for name in head.state_dict()})
    wanted = head(((statistics - center) / spread)[:, None]).emotion
    torch.testing.assert_close(network(chunks).emotion, wanted, rtol=1e-3, atol=1e-4)


def test_quiet_and_unnormalised_input_is_what_the_extractor_gives(tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path / "plain", "hubert", do_stable_layer_norm=True)
    settings = encoder / "preprocessor_config.json"
    settings.write_text(settings.read_text().replace('"do_normalize": true', '"do_normalize": false'))
    front_end = waveform_front_end(str(encoder), "1")
    network = network_for(front_end, "full")
    audio = voice(1, 0.4) * np.float32(1e-3)
    state = by_transformers(encoder, audio)[1].numpy()
    found = network.encoder.statistics(torch.from_numpy(audio).view(1, -1, 320))[0].detach().numpy()
    np.testing.assert_allclose(found, np.concatenate([state.mean(0), state.std(0)]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_whatever_is_tuned_training_begins_with_the_same_scores(folder: Path, family: str) -> None:
    front_end = waveform_front_end(str(folder / "encoders" / family))
    chunks = cut(front_end.frames(voice(3, 2.0)), front_end.usual_format)
    frozen, *others = (
        network_for(front_end, tuning)(chunks).emotion for tuning in ("frozen", "lora", "full")
    )
    assert frozen.abs().max() > 0
    for scores in others:
        torch.testing.assert_close(scores, frozen, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_bfloat16_gives_almost_the_same_scores_and_gradients(folder: Path, family: str, tuning: str) -> None:
    front_end = waveform_front_end(str(folder / "encoders" / family), "all")
    chunks = cut(front_end.frames(voice(3, 2.0)), front_end.usual_format)
    scores, gradients = [], []
    for enabled in (False, True):
        network = network_for(front_end, tuning)
        network.encoder.recompute_layers()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            scores.append(network(chunks).emotion.float())
        scores[-1].square().sum().backward()
        found = [p.grad for p in network.parameters() if p.grad is not None]
        assert all(gradient.dtype == torch.float32 for gradient in found)
        gradients.append(torch.cat([gradient.flatten() for gradient in found]))
    torch.testing.assert_close(scores[1], scores[0], rtol=0.05, atol=0.05)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99


def test_a_config_cannot_name_code(folder: Path) -> None:
    front_end = waveform_front_end(str(folder / "encoders/hubert"))
    named = {
        "_attn_implementation": "someone/kernel",
        "attn_implementation": "someone/kernel",
        "auto_map": {},
    }
    foreign = dataclasses.replace(front_end, encoder_config=front_end.encoder_config | named)
    network = network_for(dataclasses.replace(foreign, location=front_end.location), "full")
    assert network.encoder.speech._held[0].config._attn_implementation in ("sdpa", "eager")


# What learns


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layers", ["last", "1"])
def test_every_weight_that_is_tuned_learns(folder: Path, family: str, layers: str) -> None:
    front_end = waveform_front_end(str(folder / "encoders" / family), layers)
    chunks = cut(front_end.frames(voice(3, 1.5)), front_end.usual_format)
    assert not network_for(front_end, "frozen").encoder.statistics(chunks).requires_grad
    for tuning in ("lora", "full"):
        network = network_for(front_end, tuning)
        with torch.no_grad():
            for name, parameter in network.encoder.speech.named_parameters():
                if "lora_B" in name:
                    parameter.add_(0.1)
        network(chunks).emotion.square().sum().backward()
        tuned = {name: p for name, p in network.encoder.speech.named_parameters() if p.requires_grad}
        assert len(tuned) >= 4
        # A gradient of 0 in exact arithmetic: the bias of keys moves all attention scores of a query alike.
        without = [
            name
            for name, p in tuned.items()
            if (p.grad is None or not p.grad.abs().max() > 0) and "k_proj-bias" not in name
        ]
        assert not without, (tuning, without)
        tuned_names = {parameter for parameter in network.tuned_parameters()}
        assert all(parameter in tuned_names for parameter in tuned.values())


def test_frozen_and_lora_leave_the_encoder_and_full_changes_it(folder: Path) -> None:
    for store, tuning in (("wavlm", "frozen"), ("wavlm", "lora"), ("wavlm", "full"), ("whisper", "full")):
        _, training = run(config(folder, store, "unsaved", f"model.encoder_tuning={tuning}"), LocalWorker())
        found, before = speech_weights(training.network), pretrained_weights(folder, store)
        kept = {name for name in found if torch.equal(found[name], before[name])}
        if tuning != "full":
            assert kept == found.keys()
            learned = [
                p for name, p in training.network.encoder.speech.named_parameters() if "lora_B" in name
            ]
            assert (tuning == "lora") == bool(learned)
            assert all(parameter.abs().max() > 0 for parameter in learned)
            continue
        still = {name for name in kept if not name.startswith("feature_extractor.")}
        assert still <= {"masked_spec_embed", "embed_positions.weight"}
        assert kept >= {name for name in found if name.startswith("feature_extractor.")}


def test_the_encoder_has_its_own_learning_rate(folder: Path) -> None:
    """Adam's first step moves a weight by the learning rate, whatever the size of its gradient."""
    front_end = waveform_front_end(str(folder / "encoders/hubert"))
    network = network_for(front_end, "full")
    settings = TrainingConfig(
        learning_rate=1e-2, encoder_learning_rate=1e-4, weight_decay=0, warmup_fraction=0, recipe="modern"
    )
    optimizers = Optimizers(settings, network, total_steps=10)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, 3.0)
    optimizers.step(0, supervised=True)
    for name, parameter in network.named_parameters():
        rate = (1e-4 if ".speech." in name else 1e-2) if parameter.requires_grad else 0.0
        moved = (before[name] - parameter.detach()).abs()
        np.testing.assert_allclose(moved, rate, rtol=1e-2, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_computing_layers_twice_gives_the_same_gradients(folder: Path, family: str, tuning: str) -> None:
    front_end = waveform_front_end(str(folder / "encoders" / family), "all")
    chunks = cut(front_end.frames(voice(3, 1.5)), front_end.usual_format)
    gradients, calls = [], []
    for recomputes in (False, True):
        network = network_for(front_end, tuning)
        last = network.encoder.speech._held[0].get_submodule(
            "layers.1.fc1" if family == "whisper" else "encoder.layers.2.feed_forward.intermediate_dense"
        )
        count: list[int] = []
        last.register_forward_hook(lambda *_, count=count: count.append(1))
        if recomputes:
            network.encoder.recompute_layers()
        network(chunks).emotion.square().sum().backward()
        gradients.append({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
        calls.append(len(count))
    assert calls == [1, 2]
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-8)


# Whole runs


class StepLog(NullRecorder):
    def __init__(self) -> None:
        self.steps: list[dict] = []

    def step(self, record: dict) -> None:
        self.steps.append(dict(record))


def run(config: Config, worker: Worker) -> tuple[list[dict], Training]:
    data = select_data(config, open_store(config))
    log = StepLog()
    training = Training(config, data, worker, LocalClusterer(worker, config.clustering), log)
    training.run()
    return log.steps, training


VARIANTS = (
    ("wavlm", "model.encoder_tuning=lora"),
    ("whisper", "model.encoder_tuning=full"),
    (
        "hubert",
        "model.encoder_tuning=frozen",
        "model.pooling=attentive",
        "training.chunks_per_utterance=null",
    ),
    # The second worker has no rows.
    ("wav2vec2", "model.encoder_tuning=full", "training.batch_utterances=1"),
)


def run_in_group(rank: int, folder: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}/group", rank=rank, world_size=2)
    for number, (store, *settings) in enumerate(VARIANTS):
        given = config(Path(folder), store, "group", *settings, "training.epochs=1")
        steps, training = run(given, DistributedWorker(torch.device("cpu")))
        weights = training.network.state_dict()
        torch.save({"steps": json.dumps(steps), "weights": weights}, f"{out}/{number}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def group(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("group")
    mp.spawn(run_in_group, (str(folder), str(out)), nprocs=2)
    return out


@pytest.mark.parametrize("number", range(len(VARIANTS)), ids=lambda number: "-".join(VARIANTS[number][:2]))
def test_two_workers_walk_the_path_of_one(folder: Path, group: Path, number: int) -> None:
    store, *settings = VARIANTS[number]
    alone, training = run(config(folder, store, "alone", *settings, "training.epochs=1"), LocalWorker())
    ranks = [torch.load(group / f"{number}-{rank}.pt", weights_only=True) for rank in range(2)]

    assert len(alone) >= 3
    for name, value in ranks[0]["weights"].items():
        assert torch.equal(value, ranks[1]["weights"][name]), name
    for one, two in zip(alone, json.loads(ranks[0]["steps"]), strict=True):
        for name in one.keys() - {"epoch", "stage", "step", "global_step"}:
            assert two[name] == pytest.approx(one[name], rel=1e-4, abs=1e-6), (one, name)
    # Adam turns a gradient that is only rounding, such as that of a key's bias, into a whole step.
    unsure = "k_proj-bias"
    for name, value in training.network.state_dict().items():
        if unsure not in name:
            torch.testing.assert_close(ranks[0]["weights"][name], value, rtol=1e-3, atol=1e-3, msg=name)


class Killed(BaseException):
    """Simulates the end of the process."""


@pytest.mark.parametrize(("store", "tuning"), [("wavlm", "lora"), ("whisper", "full"), ("hubert", "frozen")])
def test_a_run_cut_off_after_an_epoch_ends_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch, store: str, tuning: str
) -> None:
    settings = (f"model.encoder_tuning={tuning}",)
    whole = train_run(config(folder, store, f"whole-{tuning}", *settings))
    checkpoint = Training._checkpoint

    def cut_off(self: Training, state: object, metrics: object) -> None:
        checkpoint(self, state, metrics)
        raise Killed

    monkeypatch.setattr(Training, "_checkpoint", cut_off)
    with pytest.raises(Killed):
        train_run(config(folder, store, f"cut-{tuning}", *settings))
    monkeypatch.undo()
    # Where the encoder is, and how memory is saved, are free to change.
    moved = (f"data.encoder={folder / 'encoders' / store}", "training.gradient_checkpointing=false")
    resumed = train_run(config(folder, store, f"cut-{tuning}", *settings, *moved))

    assert resumed.summary == whole.summary
    assert len((whole.folder / "steps.jsonl").read_text().splitlines()) > 2
    assert (resumed.folder / "steps.jsonl").read_text() == (whole.folder / "steps.jsonl").read_text()
    ours, theirs = (
        load_file(r.folder / "checkpoints/epoch-00002/state.safetensors") for r in (resumed, whole)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    speech = {name for name in theirs if name.startswith("/network/encoder.speech.")}
    if tuning != "full":
        assert bool(speech) == (tuning == "lora") and all("lora_" in name for name in speech)
    predicted_as_scored(folder, store, whole.folder, tuning)


def test_models_are_reported_and_bundled_where_they_need_it_and_not_exported_to_onnx(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for tuning in ("lora", "full"):
        settings = (f"model.encoder_tuning={tuning}", "training.epochs=1")
        run_folder = train_run(config(folder, "hubert", f"bundled-{tuning}", *settings)).folder
        assert cli.main(["report", str(run_folder)]) == 0
        assert 'id="figure-layer-weights"' in (run_folder / "report.html").read_text()
        model = str(run_folder / "model")
        assert cli.main(["export", model, "--onnx", str(tmp_path / "m.onnx")]) == 2
        assert "contains its encoder cannot be exported to ONNX" in capsys.readouterr().err
        bundle = ["export", model, "--bundle", "--encoder", str(folder / "encoders/hubert")]
        assert cli.main(bundle) == (0 if tuning == "lora" else 2)
        assert ("already contains the weights of its encoder" in capsys.readouterr().err) == (
            tuning == "full"
        )
        assert load(model).predict(folder / "audio/t000.wav")["arousal"]


def predicted_as_scored(folder: Path, store: str, run: Path, tuning: str) -> None:
    """The model directory, from files and from the store, against the predictions that training wrote."""
    table = pq.read_table(run / "predictions.parquet").to_pylist()
    wanted = {row["utterance_id"]: row["arousal_predicted"] for row in table if row["split"] == "test1"}
    if tuning != "full":
        with pytest.raises(
            UserError, match=r"name its folder with data\.encoder=DIR in training, --encoder DIR in predict"
        ):
            load(run / "model").predict(folder / "audio/t000.wav")
    encoder = None if tuning == "full" else folder / "encoders" / store
    predictor = load(run / "model", encoder=encoder)
    from_files = [predictor.predict(folder / "audio" / name)["arousal"] for name in wanted]
    # Stored audio is float16.
    np.testing.assert_allclose(from_files, list(wanted.values()), atol=5e-3)
    assert np.std(from_files) > 0
    # The store remembers where the encoder was.
    opened = FeatureStore.open(folder / store)
    from_store = load(run / "model").predict_store(opened, opened.rows("test1")).scores[:, 0]
    np.testing.assert_allclose(from_store, list(wanted.values()), atol=1e-4)


def test_a_run_starts_from_a_tuned_model(folder: Path) -> None:
    first = train_run(config(folder, "wavlm", "first", "model.encoder_tuning=lora"))
    start = (f"model.init={first.folder / 'model'}", "training.encoder_learning_rate=1e-12")
    again = train_run(config(folder, "wavlm", "again", "model.encoder_tuning=lora", *start))
    before, after = (load_model(one.folder / "model").networks[0][1].state_dict() for one in (first, again))
    for name in before:
        if ".speech." in name or name in ("encoder.mean", "encoder.std"):
            torch.testing.assert_close(after[name], before[name], rtol=1e-6, atol=1e-6)
    with pytest.raises(UserError, match=r"tuned with model.encoder_tuning=lora, not full"):
        train_run(config(folder, "wavlm", "other", "model.encoder_tuning=full", *start))


# Refusals


def test_mistakes_are_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tiny_encoder(tmp_path / "other", "wavlm", seed=9)

    def refused(store: str, *settings: str) -> str:
        given = [*SETTINGS, f"data.store={folder / store}", f"output_dir={tmp_path}", "name=refused"]
        assert cli.main(["train", *given, *settings]) == 2
        message = capsys.readouterr().err.strip()
        assert "\n" not in message
        return message

    assert "checksum" in refused("wavlm", f"data.encoder={other}")
    assert "--tune" in refused("features", "model.encoder_tuning=lora", "features.chunk_frames=null")
    assert "no encoder is run" in refused("features", f"data.encoder={other}", "features.chunk_frames=null")
    assert "reconstructs features" in refused("wavlm", "model.kind=vae")
    assert "needs training.recipe=modern" in refused(
        "wavlm", "model.encoder_tuning=full", "training.recipe=reference"
    )
    assert "10 to 1500 frames" in refused("wavlm", "features.chunk_frames=5")
    assert "has no mean" in refused("wavlm", "features.speaker_normalization=mean")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else find(name))
    assert 'pip install "raydec[encoders]"' in refused("wavlm", "model.encoder_tuning=lora")


def test_a_store_whose_encoder_has_moved_asks_where_it_is(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(folder / "wavlm", store)
    content = json.loads((store / "store.json").read_text())
    assert content["encoder_folder"] == str(folder / "encoders/wavlm")
    (store / "store.json").write_text(json.dumps(content | {"encoder_folder": str(tmp_path / "gone")}))
    settings = (f"data.store={store}", "model.encoder_tuning=lora", "training.epochs=1")
    with pytest.raises(UserError, match=r"name its folder with data\.encoder=DIR"):
        config(folder, "wavlm", "moved", *settings)
    run_folder = train_run(
        config(folder, "wavlm", "moved", *settings, f"data.encoder={folder / 'encoders/wavlm'}")
    ).folder
    assert cli.main(["report", str(run_folder)]) == 0


def test_preparing_names_what_does_not_go_together(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for arguments, message in (
        (["--tune"], "name one with --encoder"),
        (["--tune", "--frames", "--encoder", "e"], "choose one of them"),
    ):
        assert cli.main(["prepare", str(tmp_path), str(tmp_path / "store"), *arguments]) == 2
        assert message in capsys.readouterr().err

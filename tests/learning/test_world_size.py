"""Two gloo processes train like one, without Ray."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from stores import make_store
from torch.optim.optimizer import register_optimizer_step_pre_hook

from raydec.config import Config, config_from_dict
from raydec.learning.clusterer import LocalClusterer
from raydec.learning.training import NullRecorder, Training
from raydec.learning.worker import DistributedWorker, LocalWorker, Worker, gather_rows, share_of
from raydec.runs.training_loop import open_data


class StepLog(NullRecorder):
    def __init__(self) -> None:
        self.steps: list[dict] = []

    def step(self, record: dict) -> None:
        self.steps.append(dict(record))


def settings(
    store: Path,
    emotions: tuple[str, ...] = (),
    speakers: str = "none",
    rater_weight: float = 0,
    unlabeled: int | None = None,
    **model: object,
) -> dict:
    return {
        "data": {
            "store": str(store),
            "attributes": ["arousal", "valence"],
            "emotions": emotions,
            "unlabeled_utterances": unlabeled,
        },
        "model": {"channels": [4, 4, 8, 8, 8, 8, 8], "embedding_dim": 16, **model},
        # 3 utterances: the batches do not split evenly over two workers.
        "training": {
            "epochs": 1,
            "gradient_clip": 1e6,  # clipping hides a wrong scale
            "batch_utterances": 3,
            "recipe": "modern" if "frame_pooling" in model else "reference",
        },
        "clustering": {"num_clusters": 3},
        "features": {"scale": "log", "speaker_normalization": speakers},
        "loss": {"kl_weight": 1.0, "balance_classes": True, "rater_weight": rater_weight},
    }


def train(worker: Worker, config: Config) -> tuple[list[dict], list[torch.Tensor], dict[str, torch.Tensor]]:
    """A run's losses by step, the gradients that its first step takes, and its weights."""
    gradients: list[torch.Tensor] = []

    def keep_first(optimizer: torch.optim.Optimizer, *_: object) -> None:
        if not log.steps and not gradients:
            groups = optimizer.param_groups
            gradients.extend(
                p.grad.clone() for group in groups for p in group["params"] if p.grad is not None
            )

    _, data = open_data(config)
    log = StepLog()
    training = Training(config, data, worker, LocalClusterer(worker, config.clustering), log)
    hook = register_optimizer_step_pre_hook(keep_first)
    training.run()
    hook.remove()
    return log.steps, gradients, training.network.state_dict()


VARIANTS: list[dict] = [
    {},
    {"temporal": "transformer"},
    {"temporal": "triplet"},
    {"temporal": "cnn"},
    {"pooling": "attentive"},
    {"kind": "vae"},
    {"emotions": ("all",)},
    {"rater_weight": 2.0},
    # With unlabeled utterances, the first of two workers has all labeled ones; without, each has some.
    {"rater_weight": 2.0, "frame_pooling": "statistics"},
    {"frame_pooling": "statistics", "unlabeled": 0},
    {"speakers": "mean"},
]


def train_in_group(rank: int, store: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    for number, model in enumerate(VARIANTS):
        config = config_from_dict(settings(Path(store), **model))
        steps, gradients, weights = train(DistributedWorker(torch.device("cpu")), config)
        kept = {"steps": json.dumps(steps), "gradients": gradients, "weights": weights}
        torch.save(kept, f"{folder}/{number}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("world_size"), rated=True)


@pytest.fixture(scope="module")
def group_folder(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of two processes, for every variant."""
    folder = tmp_path_factory.mktemp("group")
    mp.spawn(train_in_group, (str(store), str(folder)), nprocs=2)
    return folder


@pytest.mark.parametrize(
    "number", range(len(VARIANTS)), ids=lambda n: "-".join(map(str, VARIANTS[n].values())) or "published"
)
def test_two_workers_walk_the_path_of_one(store: Path, group_folder: Path, number: int) -> None:
    config = config_from_dict(settings(store, **VARIANTS[number]))
    one_steps, one_gradients, one_weights = train(LocalWorker(), config)
    ranks = [torch.load(group_folder / f"{number}-{rank}.pt", weights_only=True) for rank in range(2)]

    assert len(one_steps) >= 3
    for name, value in ranks[0]["weights"].items():
        assert torch.equal(value, ranks[1]["weights"][name]), name
    together_steps = json.loads(ranks[0]["steps"])
    assert len(one_steps) == len(together_steps)
    is_modern = config.training.recipe == "modern"
    if is_modern:
        # AdamW first moves every weight by the rate times its gradient's sign, which rounding decides where a
        # gradient is almost zero: of seven stores that differed in the last bit of 18 values, three parted in
        # the second step. So its first step is compared, and the gradients that it takes. Rounding also
        # decides whether a ReLU passes the gradient of an input at zero: one such unit changed the gradients
        # below it by 0.6% of the largest on one CPU, where another CPU had 0.01%.
        largest = max(float(gradient.abs().max()) for gradient in one_gradients)
        for own, summed in zip(one_gradients, ranks[0]["gradients"], strict=True):
            torch.testing.assert_close(summed, own, rtol=0, atol=0.02 * largest)
        one_steps, together_steps = one_steps[:1], together_steps[:1]
    for alone, together in zip(one_steps, together_steps, strict=True):
        assert alone.keys() == together.keys()
        for name in alone.keys() - {"epoch", "stage", "step", "global_step"}:
            assert together[name] == pytest.approx(alone[name], rel=1e-4, abs=1e-6), (alone, name)
    if is_modern or "kind" in VARIANTS[number]:
        return  # many of its gradients lie below Adam's epsilon, where rounding decides the step
    for name, value in one_weights.items():
        torch.testing.assert_close(ranks[0]["weights"][name], value, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("num_items", [0, 1, 2, 5, 7])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_shares_cover_everything_once(num_items: int, world_size: int) -> None:
    shares = [range(num_items)[share_of(num_items, rank, world_size)] for rank in range(world_size)]
    assert [item for share in shares for item in share] == list(range(num_items))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_gather_rows_of_one_worker_is_the_identity() -> None:
    rows = np.arange(6.0).reshape(3, 2)
    assert gather_rows(LocalWorker(), rows, 3) is rows

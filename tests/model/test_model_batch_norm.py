import os
import socket
import threading
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from raydec.model.batch_norm import GlobalBatchNorm2d, _global_moments, share_batch_statistics

SHARDS = [(6, 4), (9, 1), (10, 0), (0, 4, 6)]


class ThreadSum:
    """All-reduce between threads of this process."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=20)
        self.parts: list[Tensor] = []
        self.lock = threading.Lock()

    def __call__(self, tensor: Tensor) -> Tensor:
        with self.lock:
            self.parts.append(tensor)
        self.barrier.wait()
        total = torch.stack(self.parts).sum(0)
        if self.barrier.wait() == 0:
            self.parts = []
        self.barrier.wait()
        return total


def make_layer(layer: nn.BatchNorm2d) -> nn.BatchNorm2d:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        layer.weight.copy_(torch.rand(5, generator=generator) + 0.5)
        layer.bias.copy_(torch.randn(5, generator=generator))
    return layer


def batch(mean: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(10, 5, 4, 3, generator=generator) * 2 + mean
    return x, torch.randn(10, 5, 4, 3, generator=generator)


def run(layer: nn.BatchNorm2d, x: Tensor, weights: Tensor) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    y = layer(x)
    (torch.tanh(y) * weights).sum().backward()
    found = {"y": y.detach(), "dx": x.grad, "dweight": layer.weight.grad, "dbias": layer.bias.grad}
    found |= {name: buffer.clone() for name, buffer in layer.named_buffers()}
    return {name: value for name, value in found.items() if value is not None}


def in_threads(work: list[Callable[[], dict[str, Tensor]]]) -> list[dict[str, Tensor]]:
    results: dict[int, dict[str, Tensor]] = {}
    threads = [
        threading.Thread(target=lambda i=i, f=f: results.__setitem__(i, f())) for i, f in enumerate(work)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return [results[i] for i in range(len(work))]


def assert_equals_whole(parts: list[dict[str, Tensor]], whole: dict[str, Tensor]) -> None:
    for name in ("y", "dx"):
        torch.testing.assert_close(torch.cat([p[name] for p in parts]), whole[name], rtol=1e-5, atol=2e-6)
    for name in ("dweight", "dbias"):
        torch.testing.assert_close(sum(p[name] for p in parts), whole[name], rtol=1e-5, atol=1e-5)
    for part in parts:
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            torch.testing.assert_close(part[name], whole[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shards", SHARDS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_sharded_batch_equals_native_on_the_concatenated_batch(
    shards: tuple[int, ...], channels_last: bool
) -> None:
    x, weights = batch()
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    whole = run(make_layer(nn.BatchNorm2d(5)), x, weights)
    all_sum = ThreadSum(len(shards))

    def worker(x: Tensor, weights: Tensor) -> dict[str, Tensor]:
        layer = make_layer(GlobalBatchNorm2d(5))
        share_batch_statistics(layer, all_sum)
        return run(layer, x, weights)

    pieces = zip(x.split(shards), weights.split(shards), strict=True)
    parts = in_threads([lambda a=a, b=b: worker(a, b) for a, b in pieces])
    assert_equals_whole(parts, whole)


def test_a_mean_far_from_zero_costs_no_digits() -> None:
    x, weights = batch(mean=2000.0)
    whole = run(make_layer(nn.BatchNorm2d(5)).double(), x.double(), weights.double())
    layer = make_layer(GlobalBatchNorm2d(5))
    layer.all_sum = lambda tensor: tensor
    torch.testing.assert_close(run(layer, x, weights)["y"].double(), whole["y"], rtol=1e-3, atol=1e-3)


def test_bfloat16_activations_are_summed_in_float32() -> None:
    x, weights = batch()
    layer = make_layer(GlobalBatchNorm2d(5))
    layer.all_sum = lambda tensor: tensor
    shared = run(layer, x.bfloat16(), weights)
    native = run(make_layer(nn.BatchNorm2d(5)), x.bfloat16(), weights)
    assert shared["y"].dtype == native["y"].dtype == torch.bfloat16
    for name in ("y", "dx", "dweight", "dbias"):
        torch.testing.assert_close(shared[name], native[name], rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(shared["running_var"], native["running_var"], rtol=1e-5, atol=1e-5)


def test_alone_it_is_the_native_layer() -> None:
    x, weights = batch()
    shared, native = (
        run(make_layer(GlobalBatchNorm2d(5)), x, weights),
        run(make_layer(nn.BatchNorm2d(5)), x, weights),
    )
    assert all(torch.equal(shared[name], native[name]) for name in native)


def test_evaluation_mode_needs_no_collective() -> None:
    def refuse(tensor: Tensor) -> Tensor:
        raise AssertionError("no collective expected")

    layer = GlobalBatchNorm2d(5).eval()
    layer.all_sum = refuse
    x, _ = batch()
    assert torch.equal(layer(x), nn.BatchNorm2d(5).eval()(x))


def test_sharing_can_be_undone() -> None:
    model = nn.Sequential(GlobalBatchNorm2d(2), nn.Sequential(GlobalBatchNorm2d(2)))
    share_batch_statistics(model, lambda tensor: tensor)
    assert model[0].all_sum is not None and model[1][0].all_sum is not None
    share_batch_statistics(model, None)
    assert model[0].all_sum is None and model[1][0].all_sum is None


def gloo_worker(rank: int, port: int, shards: tuple[int, ...], queue: mp.SimpleQueue) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=len(shards))

    def all_sum(tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    layer = make_layer(GlobalBatchNorm2d(5))
    share_batch_statistics(layer, all_sum)
    x, weights = batch()
    found = run(layer, x.split(shards)[rank], weights.split(shards)[rank])
    queue.put((rank, {name: value.numpy() for name, value in found.items()}))
    dist.destroy_process_group()


def test_two_gloo_processes_equal_one() -> None:
    shards = (7, 3)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    queue = mp.get_context("spawn").SimpleQueue()
    context = mp.start_processes(
        gloo_worker, args=(port, shards, queue), nprocs=2, join=False, start_method="spawn"
    )
    results = dict(queue.get() for _ in shards)
    while not context.join():
        pass
    parts = [{name: torch.as_tensor(value) for name, value in results[rank].items()} for rank in range(2)]
    x, weights = batch()
    assert_equals_whole(parts, run(make_layer(nn.BatchNorm2d(5)), x, weights))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_moments_of_large_maps_keep_their_digits(memory_format: torch.memory_format) -> None:
    """Half a million values per channel: float32 sums over all of them would be off by some 1e-4."""
    x = (torch.randn(64, 4, 62, 128, generator=torch.Generator().manual_seed(0)) * 3 + 5).to(
        memory_format=memory_format
    )
    count, mean, variance = _global_moments(x, lambda sums: sums)
    wide = x.double()
    assert count == x.numel() / 4
    torch.testing.assert_close(mean.double(), wide.mean((0, 2, 3)), rtol=1e-5, atol=0)
    torch.testing.assert_close(variance.double(), wide.var((0, 2, 3), correction=0), rtol=2e-5, atol=0)

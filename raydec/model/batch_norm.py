"""Batch normalisation whose training statistics span the global batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_CPU_BLOCK_VALUES = 2**16

AllSum = Callable[[Tensor], Tensor]


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` whose training statistics can span the rows of all workers.

    Without ``all_sum`` it is the native layer. With it, one collective per forward and one per backward
    pass make output, input gradient and running statistics equal to those of the concatenated batch, even if
    workers have different numbers of rows or none. Gradients of weight and bias cover only this worker's
    rows: they are summed over workers together with all other gradients. Every worker must run forward and
    backward, even without rows.

    Attributes:
        all_sum: sums a tensor over workers; None for a single worker.
    """

    all_sum: AllSum | None = None

    def forward(self, x: Float[Tensor, "n channel h w"]) -> Float[Tensor, "n channel h w"]:
        """Normalise per channel; as ``nn.BatchNorm2d``."""
        if self.all_sum is None or not self.training:
            return super().forward(x)
        count, mean, variance = _global_moments(x.detach(), self.all_sum)
        self._update_running(count, mean, variance)
        return _Normalize.apply(x, self.weight, self.bias, mean, variance, count, self.eps, self.all_sum)

    @torch.no_grad()
    def _update_running(self, count: Tensor, mean: Tensor, variance: Tensor) -> None:
        assert self.momentum is not None and self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        unbiased = variance * (count / (count - 1).clamp(min=1)).to(variance.dtype)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        self.num_batches_tracked.add_(1)


def share_batch_statistics(module: nn.Module, all_sum: AllSum | None) -> None:
    """Make every batch normalisation inside ``module`` compute its statistics over all workers.

    Args:
        module: a network.
        all_sum: sums a tensor over workers and returns the sum on each; None restores local statistics.
    """
    for layer in module.modules():
        if isinstance(layer, GlobalBatchNorm2d):
            layer.all_sum = all_sum


def biases_without_effect(module: nn.Module) -> list[nn.Parameter]:
    """Biases of convolutions right before a batch normalisation, which cancels them.

    In exact arithmetic their gradient is 0. Adam would scale up its rounding error to full steps in random
    directions that differ with the number of workers.
    """
    found: list[nn.Parameter] = []
    for layers in module.modules():
        if not isinstance(layers, nn.Sequential):
            continue
        for layer, following in itertools.pairwise(layers):
            if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                continue
            if isinstance(following, nn.BatchNorm2d) and isinstance(layer.bias, nn.Parameter):
                found.append(layer.bias)
    return found


def _global_moments(x: Tensor, all_sum: AllSum) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and population variance per channel over all workers' rows.

    Local moments are centred, so no digits are lost if a mean is far from zero. They are merged as sums of
    squares in float64, for which one collective is enough.
    """
    channels = x.shape[1]
    sums = torch.zeros(1 + 2 * channels, dtype=torch.float64, device=x.device)
    for block in _blocks(x):
        count = block.numel() // channels
        mean, variance = _mean_and_variance(block if block.dtype == torch.float64 else block.float())
        mean64 = mean.double()
        sums[0] += count
        sums[1 : 1 + channels] += count * mean64
        sums[1 + channels :] += count * (variance.double() + mean64.square())
    sums = all_sum(sums)
    total = sums[0].clamp(min=1)
    mean = sums[1 : 1 + channels] / total
    variance = (sums[1 + channels :] / total - mean.square()).clamp(min=0)
    dtype = torch.promote_types(x.dtype, torch.float32)
    return total, mean.to(dtype), variance.to(dtype)


def _blocks(x: Tensor) -> Sequence[Tensor]:
    """On a CPU, blocks that fit in a cache: float32 sums over millions of values would lose three digits."""
    if x.shape[0] == 0:
        return []
    if x.device.type != "cpu":
        return [x]
    # At least two rows, because the kernel cannot detect the memory format of a single row.
    return x.split(max(2, _CPU_BLOCK_VALUES // x[0].numel()))


def _mean_and_variance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population variance per channel."""
    if x.device.type == "cpu":
        # The native layer's own kernel: ten times as fast as var_mean on channels-last maps.
        return torch.batch_norm_update_stats(x, None, None, 0.0)
    variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
    return mean, variance


class _Normalize(torch.autograd.Function):
    """Normalisation with given statistics, with the gradient of statistics computed over the global batch."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        count: Tensor,
        eps: float,
        all_sum: AllSum,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance, count)
        ctx.eps, ctx.all_sum = eps, all_sum
        if x.shape[0] == 0:
            return x.clone()
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = gradients
        x, weight, mean, variance, count = ctx.saved_tensors
        if x.shape[0] == 0:
            ctx.all_sum(torch.zeros(2 * weight.numel(), dtype=torch.float64, device=x.device))
            return (dy, torch.zeros_like(weight), torch.zeros_like(weight), *[None] * 5)
        # In one pass, the native backward in evaluation mode gives both parameter gradients and dx for
        # statistics that do not depend on x.
        inverse_std = (variance + ctx.eps).rsqrt()
        dx, dweight, dbias = torch.ops.aten.native_batch_norm_backward(
            dy, x, weight, mean, variance, mean, inverse_std, False, ctx.eps, [True, True, True]
        )
        sums = ctx.all_sum(torch.cat([dbias, dweight]).double()) / count
        mean_dy, mean_dy_xhat = sums.to(mean.dtype).chunk(2)
        scale = -weight * inverse_std
        # The rest of dx is affine in the normalised x, so the same kernel computes it.
        dx += F.batch_norm(
            x, mean, variance, scale * mean_dy_xhat, scale * mean_dy, training=False, eps=ctx.eps
        )
        return (dx, dweight, dbias, *[None] * 5)

import numpy as np
import pytest
import torch
from model_support import small_model
from torch import nn

from raydec.model.batch_norm import GlobalBatchNorm2d
from raydec.reporting.prediction import Predictor

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shared_statistics_equal_native_ones_on_a_gpu(dtype: torch.dtype) -> None:
    x = torch.randn(64, 32, 31, 64, generator=torch.Generator().manual_seed(0)) * 2 + 3
    x = x.to("cuda", dtype).contiguous(memory_format=torch.channels_last)
    found = []
    for layer in (GlobalBatchNorm2d(32).cuda(), nn.BatchNorm2d(32).cuda()):
        if isinstance(layer, GlobalBatchNorm2d):
            layer.all_sum = lambda tensor: tensor
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        torch.tanh(y).square().sum().backward()
        found.append(
            (y, leaf.grad, layer.weight.grad, layer.bias.grad, layer.running_mean, layer.running_var)
        )
    tolerance = 1e-4 if dtype == torch.float32 else 3e-2
    for shared, native in zip(*found, strict=True):
        torch.testing.assert_close(shared, native, rtol=tolerance, atol=tolerance * native.abs().max().item())


def test_predictions_on_a_gpu_equal_those_on_the_cpu() -> None:
    generator = torch.Generator().manual_seed(1)
    frames = [torch.rand(length, 128, generator=generator) for length in (40, 62, 200, 400)]
    on_cpu = Predictor(small_model(), torch.device("cpu")).predict_frames(frames)
    on_gpu = Predictor(small_model(), torch.device("cuda")).predict_frames(frames)
    np.testing.assert_allclose(on_gpu.scores, on_cpu.scores, atol=1e-4)
    alone = Predictor(small_model(), torch.device("cuda")).predict_frames(frames[2:3])
    np.testing.assert_allclose(alone.scores[0], on_gpu.scores[2], atol=1e-5)

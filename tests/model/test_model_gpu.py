import numpy as np
import pytest
import torch
from model_support import small_model
from torch import nn

from raydec.inference.prediction import Predictor
from raydec.model.batch_norm import GlobalBatchNorm2d

pytestmark = pytest.mark.gpu


def run(layer: nn.BatchNorm2d, x: torch.Tensor) -> dict[str, torch.Tensor]:
    leaf = x.clone().requires_grad_()
    y = layer(leaf)
    torch.tanh(y).square().sum().backward()
    found = {"y": y, "dx": leaf.grad, "dweight": layer.weight.grad, "dbias": layer.bias.grad}
    return found | {"running_mean": layer.running_mean, "running_var": layer.running_var}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
def test_shared_statistics_equal_exact_ones_on_a_gpu(dtype: torch.dtype, tolerance: float) -> None:
    x = torch.randn(64, 32, 31, 64, generator=torch.Generator().manual_seed(0)) * 2 + 3
    x = x.to("cuda", dtype).contiguous(memory_format=torch.channels_last)
    layer = GlobalBatchNorm2d(32).cuda()
    layer.all_sum = lambda tensor: tensor
    found = run(layer, x)
    for name, exact in run(nn.BatchNorm2d(32).cuda().double(), x.double()).items():
        if name == "dbias" and dtype == torch.bfloat16:
            continue  # 127,000 rounded terms that nearly cancel, so the sum is mostly rounding error
        assert (found[name].double() - exact).abs().max() < tolerance * exact.abs().max(), name


def test_predictions_on_a_gpu_equal_those_on_the_cpu() -> None:
    generator = torch.Generator().manual_seed(1)
    frames = [torch.rand(length, 128, generator=generator) for length in (40, 62, 200, 400)]
    on_cpu = Predictor(small_model(), torch.device("cpu")).predict_frames(frames)
    on_gpu = Predictor(small_model(), torch.device("cuda")).predict_frames(frames)
    np.testing.assert_allclose(on_gpu.scores, on_cpu.scores, atol=1e-4)
    alone = Predictor(small_model(), torch.device("cuda")).predict_frames(frames[2:3])
    np.testing.assert_allclose(alone.scores[0], on_gpu.scores[2], atol=1e-5)

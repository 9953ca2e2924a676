"""Every small network trained by oneDNN's convolutions and by those of torch itself: the weights must be the same.

In torch 2.14.1 the weight gradient of a 1x1 convolution with a stride is wrong on processors without AVX-512. `make
test-isa` runs this file as such a processor would.
"""

import copy
import os

import pytest
import timm
import torch
from oracle import tiny_model
from torch import nn
from training_data import tiny_recipe, tracked_sweep

from DualTrackCore.network.backbones import timm_backbone
from DualTrackCore.network.fast.convolution_kernels import HAS_FUSED_MULTIPLY_ADD, LANES
from DualTrackCore.research.baselines import ARCHITECTURES, build_baseline
from DualTrackCore.research.training.initial import recipe_card
from DualTrackCore.research.training.lightning_task import LightningTask
from DualTrackCore.research.training.samples import SweepItems, collate
from DualTrackCore.research.training.sweeps import SweepSet

#: Channels that are no multiples of 8.
SIZES = {
    "two-frame": {"crop_size": 16, "widths": [4, 6, 10], "hidden": 8},
    "resnext": {"crop_size": 16, "window_frames": 4, "stem": 4, "widths": [4, 10], "groups": 2, "grid": 2},
    "cnn-lstm": {"crop_size": 16, "widths": [4, 6, 10], "features": 8, "hidden": 8},
    "hybrid": {"crop_size": 16, "widths": [4, 6, 10], "hidden": 8, "layers": 1, "heads": 2, "mlp": 8, "reach": 3},
}
STEPS, RATE = 3, 1e-5


def trained_weights(network, loss, onednn: bool) -> dict:
    """Weights after a few steps; the network itself stays as it was."""
    before = copy.deepcopy(network.state_dict())
    optimiser = torch.optim.SGD([p for p in network.train().parameters() if p.requires_grad], lr=RATE)
    with torch.backends.mkldnn.flags(enabled=onednn):
        for _ in range(STEPS):
            optimiser.zero_grad()
            loss(network).backward()
            optimiser.step()
    after = copy.deepcopy(network.state_dict())
    network.load_state_dict(before)
    return after


def assert_same_training(network, loss) -> None:
    """The change of each tensor of weights is the same, but for rounding (a few percent after a ReLU near zero)."""
    before = copy.deepcopy(network.state_dict())
    one, other = (trained_weights(network, loss, onednn) for onednn in (True, False))
    assert any(not torch.equal(before[name], one[name]) for name in one)
    wrong = {}
    for name, parameter in network.named_parameters():
        way, difference = (other[name] - before[name]).norm(), (one[name] - other[name]).norm()
        if difference > 0.1 * way + 1e-6 * parameter.norm() + 1e-7:
            wrong[name] = float(difference / way)
    assert not wrong


@pytest.mark.skipif("ATEN_CPU_CAPABILITY" not in os.environ, reason="no instruction set is asked for")
def test_torch_and_numba_compute_with_the_instruction_set_that_is_asked_for():
    wanted = os.environ["ATEN_CPU_CAPABILITY"]
    assert torch.backends.cpu.get_cpu_capability() == wanted.upper()
    assert {"avx2": (8, True), "default": (4, False)}[wanted] == (LANES, HAS_FUSED_MULTIPLY_ADD)


def test_every_baseline_is_among_the_sizes():
    assert set(SIZES) == set(ARCHITECTURES)


@pytest.mark.parametrize("kind", SIZES)
def test_a_baseline_learns_the_same_with_and_without_onednn(kind):
    torch.manual_seed(1)
    images, wanted = torch.rand(2, 9, 16, 16), torch.randn(2, 8, 6)
    assert_same_training(build_baseline(kind, **SIZES[kind]), lambda net: (net(images) - wanted).square().mean())


@pytest.mark.parametrize("stage", ["local1", "global", "fusion", "finetune1", "finetune2"])
def test_a_stage_of_the_small_model_learns_the_same_with_and_without_onednn(stage):
    recipe = tiny_recipe(stage)
    network = tiny_model(local_widths=[4, 6, 10, 12], global_widths=[4, 6, 10, 12]).network
    task = LightningTask(recipe, network, torch.zeros(6), torch.ones(6))
    sweeps = SweepSet(("0", "1"), (tracked_sweep(0), tracked_sweep(1)))
    items = SweepItems(recipe, sweeps, network, recipe_card(recipe))
    batch = collate([items[(0, 0)], items[(0, 1)]])

    def loss(task):
        torch.manual_seed(2)  # dropout
        return task.component_losses(batch).mean()

    assert_same_training(task, loss)


@pytest.mark.parametrize("name", ["test_resnet", "repvgg_a0"])
def test_a_backbone_learns_the_same_with_and_without_onednn(name):
    torch.manual_seed(3)
    backbone, features = timm_backbone(name, 48)
    images, wanted = torch.rand(4, 1, 48, 48), torch.randn(4, features)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    assert_same_training(backbone, lambda net: (net(images) - wanted).square().mean())


@pytest.mark.parametrize("name", ["repvgg_a0", "mobileone_s0"])
def test_a_backbone_gives_what_its_own_strided_convolutions_give(name):
    backbone, _ = timm_backbone(name, 48)
    strided = timm.create_model(name, num_classes=0, in_chans=1)
    strided.load_state_dict(backbone.state_dict())
    images = torch.rand(2, 1, 47, 48)
    torch.testing.assert_close(backbone.eval()(images), strided.eval()(images))
    assert not [module for module in backbone.modules() if is_wrong_without_avx512(module)]
    assert [module for module in strided.modules() if is_wrong_without_avx512(module)]


def is_wrong_without_avx512(module) -> bool:
    if not isinstance(module, nn.Conv2d) or module.kernel_size != (1, 1) or module.stride == (1, 1):
        return False
    return bool(module.in_channels % 8 or module.out_channels % 8)


@pytest.mark.parametrize("kind", ["cnn-lstm", "hybrid"])
@pytest.mark.parametrize("size", [16, 24])
def test_the_shortcuts_of_a_residual_block_give_what_a_strided_convolution_gives(kind, size):
    network = build_baseline(kind, **{**SIZES[kind], "crop_size": size}).eval()
    blocks = [module for module in network.modules() if type(module).__name__ == "ResidualBlock"]
    assert len(blocks) == 2
    for block in blocks:
        convolution, norm = block.shortcut
        x = torch.randn(3, convolution.in_channels, size, size + 1).contiguous(memory_format=torch.channels_last)
        strided = nn.functional.conv2d(x, convolution.weight, stride=2)
        torch.testing.assert_close(block(x), torch.relu(block.body(x) + norm(strided)))
    assert not [module for module in network.modules() if is_wrong_without_avx512(module)]

"""Convolutions with the BatchNorm behind them folded in: one weight, one bias, for inference only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from DualTrackCore.network.trunk import BasicBlock, Trunk


@dataclass(frozen=True)
class Folded:
    """A convolution with bias.

    Attributes:
        weight: [outputs, inputs, frames, rows, columns] float64.
        bias: [outputs] float64.
        stride: in rows and columns.
        activate: whether negative results become 0.
    """

    weight: Tensor
    bias: Tensor
    stride: int
    activate: bool


@dataclass(frozen=True)
class FoldedBlock:
    """A basic block; `shortcut` is None where the input itself goes around the two convolutions."""

    conv1: Folded
    conv2: Folded
    shortcut: Folded | None


@dataclass(frozen=True)
class FoldedTrunk:
    """A trunk in evaluation mode: two convolutions of the stem, then the blocks."""

    stem: tuple[Folded, Folded]
    blocks: tuple[FoldedBlock, ...]
    width: int


def fold(convolution: nn.Conv3d, norm: nn.BatchNorm3d, activate: bool) -> Folded:
    """The convolution and the BatchNorm in evaluation mode as one, computed in float64 on the CPU."""
    kernel, gain, offset, mean, variance = (
        tensor.detach().cpu().double()  # Apple's GPU has no float64
        for tensor in (convolution.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    scale = gain / torch.sqrt(variance + norm.eps)
    weight, bias = kernel * scale[:, None, None, None, None], offset - mean * scale
    return Folded(weight, bias, convolution.stride[1], activate)


def fold_trunk(trunk: Trunk) -> FoldedTrunk:
    """All convolutions of a trunk, folded."""
    stem = trunk.stem
    blocks = tuple(_fold_block(block) for block in trunk.blocks)
    return FoldedTrunk((fold(stem[0], stem[1], True), fold(stem[3], stem[4], True)), blocks, trunk.width)


def _fold_block(block: BasicBlock) -> FoldedBlock:
    shortcut = None if block.downsample is None else fold(*block.downsample, activate=False)
    # The activation behind the second convolution comes after the shortcut is added; layers do both at once.
    return FoldedBlock(fold(*block.conv1[:2], activate=True), fold(*block.conv2, activate=True), shortcut)


def padded_channels(folded: Folded, inputs: int, outputs: int) -> Folded:
    """The same convolution between more channels, the new ones zero."""
    weight = folded.weight.new_zeros((outputs, inputs, *folded.weight.shape[2:]))
    weight[: folded.weight.shape[0], : folded.weight.shape[1]] = folded.weight
    bias = folded.bias.new_zeros(outputs)
    bias[: len(folded.bias)] = folded.bias
    return Folded(weight, bias, folded.stride, folded.activate)

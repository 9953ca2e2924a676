"""What a weights file itself tells of the images that it was trained on.

A batch norm right behind the first convolution keeps the mean and the variance of that convolution's output on the
training images (Ioffe and Szegedy 2015, section 3.1). Whether whole frames went in as grey / 255 or normalised scales
its variances by 16 and moves its means, and so the file tells which of the two it was; and images whose statistics lie
far from those kept are unlike the training images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

#: (mean, std): whole frames go in as (grey / 255 - mean) / std.
Normalisation = tuple[float, float]
#: The two that published configurations name. The first is that of weights that nothing is known of.
PLAIN, SCALED = (0.0, 1.0), (0.5, 0.25)
#: Greatest distance on whole frames at which a normalisation counts as the one of the training, and greatest distance
#: on local crops of clips like the training data. Docs/mini-training-log.md has the measurement.
WHOLE_LIMIT, CROP_LIMIT = 2.0, 0.5
#: Least part of the running means that one grey level has to explain, for that level to count as known.
_LEAST_FIT = 0.8
_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
_BATCH_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class InputCheck:
    """How whole frames go into a network, who says so, and how far a clip is from the training images.

    Attributes:
        used: the normalisation.
        said_by: "card"; "clip", whose statistics are those of the training with it; "weights", by the sign of their
            means alone; "nobody", where none of these knows.
        whole: the distance of :func:`distance` on whole frames with each normalisation; empty where the backbone has
            no batch norm of a training to compare with.
        crop: the distance on local crops; None where the trunk's batch norm has learned nothing.
        limits: greatest distances, on whole frames and on local crops, of clips like those of the training.
    """

    used: Normalisation
    said_by: Literal["card", "clip", "weights", "nobody"]
    whole: dict[Normalisation, float]
    crop: float | None
    limits: tuple[float, float] = (WHOLE_LIMIT, CROP_LIMIT)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a report."""
        return {
            "global_mean": self.used[0],
            "global_std": self.used[1],
            "said_by": self.said_by,
            "whole_distances": [{"mean": n[0], "std": n[1], "distance": d} for n, d in self.whole.items()],
            "crop_distance": self.crop,
            "limits": {"whole": self.limits[0], "crop": self.limits[1]},
            "far": [name for name, _, _ in self._beyond_limits()],
            "sentence": self.sentence(),
        }

    def sentence(self) -> str:
        """The normalisation, who says so, and the distances."""
        said = {
            "card": "as the model card says",
            "clip": "as the statistics in the weights say",
            "weights": "as the means in the weights say",
            "nobody": "since neither a model card nor the weights say otherwise",
        }[self.said_by]
        figures = ", ".join(f"{d:.2f} with {formula(n)}" for n, d in self.whole.items())
        known = f"distance to the training images: {figures}" if figures else "no trained batch norm to compare with"
        return f"whole frames go in as {formula(self.used)}, {said} ({known})."

    def contradiction(self) -> str | None:
        """A sentence where the images come closest to the training with another normalisation than is used."""
        best = _reproduced(self.whole)
        if best in (None, self.used):
            return None
        remedy = "correct global_mean and global_std in the model card, or set both to null"
        if self.said_by != "card":
            remedy = "track the finished sweep, where its images decide"
        return f"On these frames: {self.sentence()} The smaller distance speaks for {formula(best)}; {remedy}."

    def warnings(self) -> list[str]:
        """Sentences for a contradiction, and for images that are unlike the training images."""
        messages = [sentence for sentence in (self.contradiction(),) if sentence]
        if far := [f"{d:.2f} for {name} (limit {most:g})" for name, d, most in self._beyond_limits()]:
            messages.append(
                "The frames look unlike those that the model was trained on: their distance to the training images is "
                f"{' and '.join(far)}. Do not rely on the motion."
            )
        return messages

    def _beyond_limits(self) -> list[tuple[str, float, float]]:
        """Name of the images, distance and limit where images are farther from the training than those like them."""
        whole, crop = self.limits
        pairs = (("local crops", self.crop, crop), ("whole frames", self.whole.get(self.used), whole))
        return [(name, d, most) for name, d, most in pairs if d is not None and d > most]


def formula(normalisation: Normalisation) -> str:
    """A normalisation in words: "grey / 255" or "(grey / 255 - 0.5) / 0.25"."""
    mean, std = normalisation
    return "grey / 255" if normalisation == PLAIN else f"(grey / 255 - {mean:g}) / {std:g}"


def check_input(
    network: nn.Module,
    whole: Tensor | None,
    crops: Tensor | None,
    card: Normalisation | None,
    tracked: bool = False,
    limits: tuple[float, float] | None = None,
) -> InputCheck:
    """Compare images with what the network was trained on, and find the normalisation of whole frames.

    The card decides where it knows; else the normalisation with which the images come closest to the training, if that
    is close; else the weights alone. Statistics whose means no grey level explains, as those of generated weights, are
    of no training, and decide nothing.

    Args:
        network: a :class:`~DualTrackCore.network.dualtrack.DualTrack`.
        whole: [k, global_size, global_size] in 0 to 1, not normalised.
        crops: [k, crop_size, crop_size] in 0 to 1; neither is needed where the network has no statistics.
        card: the normalisation that the model card states, or None.
        tracked: whether the network has seen the images already, so that they cannot decide any more.
        limits: that the model card states of the distances, or None.
    """
    candidates = dict.fromkeys((PLAIN, SCALED, *([card] if card else [])))
    backbone, trunk = _first_layers(network.global_encoder.backbone), _first_layers(network.local.trunk)
    by_weights = told_by_weights(network)
    distances = {(m, s): distance(backbone, (whole - m) / s) for m, s in candidates} if by_weights else {}
    crop = distance(trunk, crops) if trunk else None
    told = (card, None if tracked else _reproduced(distances), by_weights, PLAIN)
    said_by, used = next((who, n) for who, n in zip(("card", "clip", "weights", "nobody"), told, strict=True) if n)
    return InputCheck(used, said_by, distances, crop, limits or (WHOLE_LIMIT, CROP_LIMIT))


def has_statistics(network: nn.Module) -> bool:
    """Whether any batch norm is there to compare images with."""
    parts = network.global_encoder.backbone, network.local.trunk
    return any(_first_layers(part) is not None for part in parts)


def told_by_weights(network: nn.Module) -> Normalisation | None:
    """The normalisation of whole frames by the running means alone; None where they do not tell.

    The mean output of a convolution is the mean input times its output on an image of ones, but for the borders. A
    mean below 0 can only come from normalised images; and images of B-mode are darker than half grey on average, so
    that normalised ones have a mean below 0.
    """
    encoder = getattr(network, "global_encoder", None)
    layers = None if encoder is None else _first_layers(encoder.backbone)
    if layers is None:
        return None
    convolution, norm = layers
    with torch.inference_mode():
        ones = torch.ones(1, network.global_size, network.global_size, device=convolution.weight.device)
        bias = 0 if convolution.bias is None else convolution.bias
        gains = _output(convolution, ones).mean(dim=1) - bias
        means = norm.running_mean - bias
        level = (gains @ means) / (gains @ gains)
        if not (means - level * gains).square().sum() <= (1 - _LEAST_FIT) * means.square().sum():
            return None
    return SCALED if level < 0 else PLAIN


def distance(layers: tuple[nn.Module, nn.Module], images: Tensor) -> float:
    """How far apart the output of a first convolution on images and on the training images is; symmetric, 0 if equal.

    The mean over channels of |log(v / v')| + |m - m'| / sqrt((v + v') / 2), with means m and variances v.

    Args:
        layers: the convolution and the batch norm behind it.
        images: [k, H, W] as they go in.
    """
    convolution, norm = layers
    with torch.inference_mode():
        outputs = _output(convolution, images.to(convolution.weight.device))
        variances, means = torch.var_mean(outputs, dim=1, correction=0)
        own, kept = variances + norm.eps, norm.running_var + norm.eps
        apart = (own / kept).log().abs() + (means - norm.running_mean).abs() / ((own + kept) / 2).sqrt()
        return apart.mean().item()


def _reproduced(distances: dict[Normalisation, float]) -> Normalisation | None:
    """The normalisation of the smallest distance; None where even that is no match."""
    best = min(distances, key=distances.get, default=None)
    return None if best is None or not distances[best] <= WHOLE_LIMIT else best


def _first_layers(part: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    """The first convolution and the batch norm behind it, if these come first and the batch norm has learned."""
    leaves = [m for m in part.modules() if next(m.parameters(recurse=False), None) is not None][:2]
    if len(leaves) < 2 or not isinstance(leaves[0], _CONVOLUTIONS) or not isinstance(leaves[1], _BATCH_NORMS):
        return None
    convolution, norm = leaves
    if convolution.in_channels != 1 or norm.running_mean is None or not norm.running_mean.any():
        return None
    return convolution, norm


def _output(convolution: nn.Module, images: Tensor) -> Tensor:
    """[C, values] of a convolution on images [k, H, W]."""
    shape = (len(images), 1, *([1] if isinstance(convolution, nn.Conv3d) else []), *images.shape[1:])
    return convolution(images.reshape(shape)).transpose(0, 1).flatten(1)

"""Trajectories of a probe and the pose algebra behind them.

Frames of reference: *image* has its origin at the image centre, x to the right, y down the beam, z = x cross y, in mm.
*frame0* is the image frame of the first frame. `poses[i]` maps image coordinates of frame i to frame0; relative pose i
maps image coordinates of frame i + 1 to those of frame i, so that `poses[i + 1] = poses[i] @ relative[i]`. The axes of
frame0 are read as left, posterior, superior (LPS), the numbers of a tracker's *reference* as right, anterior, superior
(RAS), as Slicer reads those of PLUS; Docs/frames.md shows every frame of reference.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Any

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.summaries import Summarised, drawn_path

#: Largest departure from orthonormality accepted of a pose: old tracked files carry six digits and worse.
RIGID_TOLERANCE = 1e-2
#: Departure up to which a pose is kept as it is, bit for bit: the rounding of six digits. Others become rigid motions.
EXACT_TOLERANCE = 1e-5
#: Farthest position of a pose, mm: ten kilometres, beyond which sums and lengths mean nothing.
FARTHEST_MM = 1e7
#: [4, 4] float64: LPS numbers to RAS numbers, and back; half a turn about S.
RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
RAS_FROM_LPS.flags.writeable = False
#: Keys of a provenance that only estimates have: the network or the other method that made them.
_ESTIMATE_KEYS = ("model", "method")
#: Key of a provenance: 6 numbers from 0 to 1, the share of each component's variance in `Trajectory.sigma` that is the
#: same in all steps of a sweep, as it was measured for the model. Where it is missing all of it counts as the same.
STEP_ERROR_CORRELATION = "step_error_correlation"


class PoseOrigin(str, Enum):
    """Where poses are from, the best first: a tracker, the simulation, nobody knows, or an estimate from the images."""

    MEASURED = "measured"
    SIMULATED = "simulated"
    UNKNOWN = "unknown"
    ESTIMATED = "estimated"

    @property
    def is_truth(self) -> bool:
        """Whether errors may be measured against such poses."""
        return self in (PoseOrigin.MEASURED, PoseOrigin.SIMULATED)

    @classmethod
    def worst(cls, origins: Iterable[object]) -> PoseOrigin:
        """What poses are that were made from several kinds; words that are none of these, and no word, are unknown."""
        known = {member.value: member for member in cls}
        found = [known.get(str(getattr(origin, "value", origin)), cls.UNKNOWN) for origin in origins]
        return max(found, key=list(cls).index, default=cls.UNKNOWN)


def matrices_from_parameters(parameters: np.ndarray) -> np.ndarray:
    """Rigid 4x4 matrices of six-parameter motions.

    Args:
        parameters: [..., 6] = (tx, ty, tz) in mm, then rotations about x, y, z in degrees; rotations are about fixed
            axes, x first: R = Rz Ry Rx.

    Returns:
        [..., 4, 4] float64.
    """
    parameters = np.asarray(parameters, dtype=np.float64)
    if parameters.shape[-1:] != (6,):
        raise InputError(f"Motion parameters have shape {parameters.shape}; the last axis must be 6.")
    cx, cy, cz = np.moveaxis(np.cos(np.deg2rad(parameters[..., 3:])), -1, 0)
    sx, sy, sz = np.moveaxis(np.sin(np.deg2rad(parameters[..., 3:])), -1, 0)
    matrices = np.zeros((*parameters.shape[:-1], 4, 4))
    matrices[..., 0, 0], matrices[..., 0, 1] = cz * cy, cz * sy * sx - sz * cx
    matrices[..., 0, 2] = cz * sy * cx + sz * sx
    matrices[..., 1, 0], matrices[..., 1, 1] = sz * cy, sz * sy * sx + cz * cx
    matrices[..., 1, 2] = sz * sy * cx - cz * sx
    matrices[..., 2, 0], matrices[..., 2, 1], matrices[..., 2, 2] = -sy, cy * sx, cy * cx
    matrices[..., :3, 3] = parameters[..., :3]
    matrices[..., 3, 3] = 1.0
    return matrices


def parameters_from_matrices(matrices: np.ndarray) -> np.ndarray:
    """Six-parameter motions of rigid 4x4 matrices: the inverse of :func:`matrices_from_parameters`.

    At gimbal lock (rotation about y of 90 degrees) the rotation about z is set to zero.

    Args:
        matrices: [..., 4, 4], rigid.

    Returns:
        [..., 6] float64, mm and degrees, rotation about y in -90 to 90.
    """
    matrices = np.asarray(matrices, dtype=np.float64)
    r = np.moveaxis(matrices[..., :3, :3], (-2, -1), (0, 1))
    horizontal = np.hypot(r[0, 0], r[1, 0])
    locked = horizontal < 1e-9
    x = np.where(locked, np.arctan2(-r[1, 2], r[1, 1]), np.arctan2(r[2, 1], r[2, 2]))
    y = np.arctan2(-r[2, 0], horizontal)
    z = np.where(locked, 0.0, np.arctan2(r[1, 0], r[0, 0]))
    return np.concatenate([matrices[..., :3, 3], np.rad2deg(np.stack([x, y, z], axis=-1))], axis=-1)


def invert_rigid(matrices: np.ndarray) -> np.ndarray:
    """Inverse of rigid 4x4 matrices [..., 4, 4] by transposition, exact to rounding."""
    matrices = np.asarray(matrices, dtype=np.float64)
    inverse = np.zeros_like(matrices)
    rotation = np.swapaxes(matrices[..., :3, :3], -1, -2)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ matrices[..., :3, 3, None])[..., 0]
    inverse[..., 3, 3] = 1.0
    return inverse


def accumulate(relative: np.ndarray) -> np.ndarray:
    """Poses in frame0 from relative poses, in float64.

    Args:
        relative: [N - 1, 4, 4]; relative[i] maps frame i + 1 to frame i.

    Returns:
        [N, 4, 4] float64, the first the identity.
    """
    steps = np.asarray(relative, dtype=np.float64)
    return np.array([*itertools.accumulate(steps, np.matmul, initial=np.eye(4))])


@dataclass(frozen=True, eq=False, repr=False)
class Trajectory(Summarised):
    """Where each frame of a sweep lies.

    Attributes:
        poses: [N, 4, 4] float64, frame0_from_image, rigid, mm. Given ones that depart from a rigid motion by up to 1 %
            become the nearest one. Where `valid` is false the matrix is what the source held and means nothing.
        valid: [N] bool. All constructors here make the first valid frame frame0; poses given by hand may differ.
        reference_from_frame0: [4, 4] float64 or None: places the trajectory in the world of the tracker it came from,
            whose numbers Slicer reads as RAS.
        provenance: where the poses come from: plain values, written into reports. Its `warnings` say how many poses
            were made rigid, and how far off they were.
        origin: a :class:`PoseOrigin` or its text. Unknown where nobody says it; only measured and simulated poses count
            as truth. Poses whose provenance names a model or a method are estimated, whatever is given here.
        sigma: [N - 1, 6] float64 or None where nobody says it: standard deviation of the error of each relative motion
            (`parameters`: mm, degrees), not negative; a row of NaN where it is not known, as beside invalid poses.
        path_covariance: [N, 7] float64 or None, of a path that was corrected (:mod:`DualTrackCore.corrections`): the
            variance of its length up to each frame, then xx, xy, xz, yy, yz, zz of the covariance of its centre in
            frame0, mm squared. Where it is known it goes before what `sigma` says of them.
    """

    poses: np.ndarray
    valid: np.ndarray | None = None
    reference_from_frame0: np.ndarray | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    origin: PoseOrigin = PoseOrigin.UNKNOWN
    sigma: np.ndarray | None = None
    path_covariance: np.ndarray | None = None

    def __post_init__(self) -> None:
        poses, valid, notes = _validated_poses(self.poses, self.valid)
        sigma, covariance = self.sigma, self.path_covariance
        if sigma is not None or covariance is not None:
            from DualTrackCore.uncertainty import validated_covariance, validated_sigma

            sigma = None if sigma is None else validated_sigma(sigma, len(poses))
            covariance = None if covariance is None else validated_covariance(covariance, len(poses))
        reference = self.reference_from_frame0
        if reference is not None:
            reference = np.array(reference, dtype=np.float64)
            if reference.shape != (4, 4):
                raise InputError(f"reference_from_frame0 has shape {reference.shape}; expected a 4x4 matrix.")
            (reference,), _, more = _validated_poses(reference[None], None, "reference_from_frame0")
            notes += more
        arrays = {"poses": poses, "valid": valid, "reference_from_frame0": reference, "sigma": sigma}
        for name, array in {**arrays, "path_covariance": covariance}.items():
            if array is not None:
                array.flags.writeable = False
            object.__setattr__(self, name, array)
        object.__setattr__(self, "provenance", MappingProxyType(_with_warnings(self.provenance, notes)))
        try:
            origin = PoseOrigin(self.origin)
        except ValueError:
            known = ", ".join(member.value for member in PoseOrigin)
            raise InputError(f"The origin of the poses is {self.origin!r}; expected one of {known}.") from None
        if any(self.provenance.get(key) is not None for key in _ESTIMATE_KEYS):
            origin = PoseOrigin.ESTIMATED
        object.__setattr__(self, "origin", origin)

    def __len__(self) -> int:
        return len(self.poses)

    def _summary(self) -> dict[str, str]:
        shown = {"poses": f"{len(self)} poses", "path": f"path of {self.path_length_mm:.4g} mm"}
        if missing := int(np.count_nonzero(~self.valid)):
            shown["invalid"] = f"{missing} invalid"
        return {
            **shown,
            "origin": f"{self.origin.value} origin" if self.origin is PoseOrigin.UNKNOWN else self.origin.value,
        }

    def _thumbnail(self) -> np.ndarray | None:
        return drawn_path(self.poses[self.valid, :3, 3])

    @classmethod
    def from_parameters(
        cls,
        parameters: np.ndarray,
        provenance: Mapping[str, Any] | None = None,
        origin: PoseOrigin | str = PoseOrigin.UNKNOWN,
        sigma: np.ndarray | None = None,
    ) -> Trajectory:
        """Trajectory of N frames from N - 1 relative motions [N - 1, 6] (mm, degrees), accumulated in float64."""
        parameters = np.asarray(parameters, dtype=np.float64)
        if parameters.ndim != 2:
            raise InputError(f"Relative motions have shape {parameters.shape}; expected [frames - 1, 6].")
        if not np.isfinite(parameters).all():
            first = int(np.flatnonzero(~np.isfinite(parameters).all(axis=1))[0])
            raise InputError(f"The motion from frame {first} to frame {first + 1} is not a finite number.")
        poses = accumulate(matrices_from_parameters(parameters))
        return cls(poses, provenance=provenance or {}, origin=origin, sigma=sigma)

    @classmethod
    def from_reference(
        cls,
        reference_from_image: np.ndarray,
        valid: np.ndarray | None = None,
        provenance: Mapping[str, Any] | None = None,
        origin: PoseOrigin | str = PoseOrigin.UNKNOWN,
    ) -> Trajectory:
        """Trajectory from rigid poses in a tracker's world.

        Args:
            reference_from_image: [N, 4, 4] rigid, image (centre, mm) to reference (mm).
            valid: [N] bool; invalid poses are carried along unread.
            provenance, origin: as for the class.
        """
        world, valid, notes = _validated_poses(reference_from_image, valid)
        first = int(np.argmax(valid)) if valid.any() else None
        reference = np.eye(4) if first is None else world[first]
        poses = np.where(valid[:, None, None], np.linalg.inv(reference) @ np.nan_to_num(world), world)
        if first is not None:
            poses[first] = np.eye(4)
        return cls(poses, valid, reference, _with_warnings(provenance or {}, notes), origin)

    @property
    def estimated_by(self) -> str | None:
        """The model that estimated the poses from the images; None for others, and where it is not known."""
        model = self.provenance.get("model")
        return None if model is None else str(model)

    @property
    def is_guess(self) -> bool:
        """Whether the model that estimated the poses was never trained, or never saw sweeps of this kind."""
        return self.provenance.get("guess") is True

    @property
    def origin_text(self) -> str:
        """Where the poses are from, in words that go after "The poses are"."""
        texts = {PoseOrigin.MEASURED: "measured by a tracker", PoseOrigin.UNKNOWN: "of unknown origin"}
        by = "" if self.estimated_by is None else f" by {self.estimated_by}"
        return texts.get(self.origin, f"{self.origin.value}{by}{' (a guess)' * self.is_guess}")

    @property
    def step_error_correlation(self) -> np.ndarray:
        """[6] share of the variance of `sigma` that is the same in all steps; see :data:`STEP_ERROR_CORRELATION`."""
        said = self.provenance.get(STEP_ERROR_CORRELATION)
        return np.ones(6) if said is None else np.array(said, dtype=np.float64)

    @property
    def _known_poses(self) -> np.ndarray:
        return np.where(self.valid[:, None, None], self.poses, np.nan)

    @property
    def relative(self) -> np.ndarray:
        """[N - 1, 4, 4] float64: entry i maps image coordinates of frame i + 1 to frame i; NaN if either is invalid."""
        return invert_rigid(self._known_poses[:-1]) @ self._known_poses[1:]

    @property
    def parameters(self) -> np.ndarray:
        """[N - 1, 6] float64: the relative poses as mm and degrees; NaN where a pose is invalid."""
        return parameters_from_matrices(self.relative)

    @property
    def centres_mm(self) -> np.ndarray:
        """[N, 3] float64: image centres in frame0, mm; NaN where a pose is invalid."""
        return np.where(self.valid[:, None], self.poses[:, :3, 3], np.nan)

    @property
    def ras_from_frame0(self) -> np.ndarray:
        """[4, 4] float64: frame0 to the world that files for Slicer and PLUS are written in, mm, as RAS numbers.

        It is the tracker's reference where there is one, and frame0 itself otherwise.
        """
        return RAS_FROM_LPS if self.reference_from_frame0 is None else self.reference_from_frame0

    @property
    def path_length_mm(self) -> float:
        """Length of the path of the image centre over the valid frames, mm."""
        return float(np.linalg.norm(np.diff(self.centres_mm[self.valid], axis=0), axis=1).sum())

    @property
    def lengths_mm(self) -> np.ndarray:
        """[N] length of the path up to each frame, mm; NaN where its pose is invalid."""
        lengths = np.full(len(self), np.nan)
        steps = np.linalg.norm(np.diff(self.centres_mm[self.valid], axis=0), axis=1)
        lengths[self.valid] = np.concatenate([[0.0], np.cumsum(steps)])[: int(self.valid.sum())]
        return lengths

    def slice(self, start: int, stop: int) -> Trajectory:
        """Frames start to stop - 1, re-expressed so that the first valid one of them is frame0."""
        world = np.eye(4) if self.reference_from_frame0 is None else self.reference_from_frame0
        part = Trajectory.from_reference(self.poses[start:stop], self.valid[start:stop], self.provenance, self.origin)
        reference = None if self.reference_from_frame0 is None else world @ part.reference_from_frame0
        first, after, _ = slice(start, stop).indices(len(self))
        sigma = None if self.sigma is None else self.sigma[first : max(after - 1, first)]
        return replace(part, reference_from_frame0=reference, sigma=sigma)

    def chosen(self, indices: np.ndarray) -> Trajectory:
        """The poses of some frames, in any order and more than once, in the same frame0.

        The error of a motion from a frame to itself is 0; that of one over several steps is theirs carried along the
        path (:mod:`~DualTrackCore.uncertainty`).
        """
        sigma = None
        if self.sigma is not None:
            from DualTrackCore.uncertainty import sigma_between

            frames = np.arange(len(self))[indices]
            sigma = sigma_between(self._known_poses, self.sigma, self.step_error_correlation, frames)
        covariance = None if self.path_covariance is None else self.path_covariance[indices]
        parts = {"poses": self.poses[indices], "valid": self.valid[indices], "path_covariance": covariance}
        return replace(self, **parts, sigma=sigma)


def rigid_error(poses: np.ndarray) -> np.ndarray:
    """[N] largest departure of finite matrices [N, 4, 4] from rigid motions; infinite for reflections."""
    rotation = poses[:, :3, :3]
    error = np.abs(np.swapaxes(rotation, 1, 2) @ rotation - np.eye(3)).max(axis=(1, 2), initial=0.0)
    error = np.maximum(error, np.abs(poses[:, 3] - [0, 0, 0, 1]).max(axis=1, initial=0.0))
    return np.where(np.linalg.det(rotation) < 0, np.inf, error)


def nearest_rigid(matrices: np.ndarray) -> np.ndarray:
    """Rigid 4x4 matrices with the translation of [N, 4, 4] and the rotation nearest to theirs (orthogonal Procrustes).

    Args:
        matrices: no reflections.
    """
    rigid = np.array(matrices, dtype=np.float64)
    left, _, right = np.linalg.svd(rigid[:, :3, :3])
    rigid[:, :3, :3], rigid[:, 3] = left @ right, [0, 0, 0, 1]
    return rigid


def _with_warnings(provenance: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """The provenance with further sentences among its warnings."""
    return {**provenance, "warnings": [*provenance.get("warnings", ()), *notes]} if notes else dict(provenance)


def _validated_poses(poses: object, valid: object, name: str = "") -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Copies of the poses [N, 4, 4], the valid ones rigid, the flags [N], and what was changed, in a sentence.

    A name stands for a single pose.
    """
    try:
        poses = np.array(poses, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("Poses must be an array of numbers, [frames, 4, 4].") from None
    if poses.ndim != 3 or poses.shape[1:] != (4, 4):
        raise InputError(f"Poses have shape {poses.shape}; expected [frames, 4, 4].")
    valid = np.ones(len(poses), bool) if valid is None else np.array(valid, dtype=bool)
    if valid.shape != poses.shape[:1]:
        raise InputError(f"{len(poses)} poses came with {valid.size} validity flags; the numbers must be equal.")
    finite = np.isfinite(poses).all(axis=(1, 2))
    bad = np.flatnonzero(valid & ~finite)
    if len(bad):
        raise InputError(
            f"{name or f'The pose of frame {bad[0]}'} is not finite; mark such frames invalid or remove them."
        )
    farthest = np.abs(np.where((valid & finite)[:, None], poses[:, :3, 3], 0)).max(axis=1)
    bad = np.flatnonzero(farthest > FARTHEST_MM)
    if len(bad):
        raise InputError(
            f"{name or f'The pose of frame {bad[0]}'} lies {farthest[bad[0]]:.3g} mm away and the limit is "
            f"{FARTHEST_MM:.0e} mm; the tracking is damaged or not in mm."
        )
    error = rigid_error(np.where((valid & finite)[:, None, None], poses, np.eye(4)))
    bad = np.flatnonzero(~(error <= RIGID_TOLERANCE))  # also where it overflows
    if len(bad):
        raise InputError(
            f"{name or f'The pose of frame {bad[0]}'} is not a rigid motion (it departs by {error[bad[0]]:.3g}, "
            f"the limit is {RIGID_TOLERANCE}); scaling belongs into the calibration."
        )
    turned = error > EXACT_TOLERANCE
    poses[turned] = nearest_rigid(poses[turned])
    of_all = name or f"{turned.sum()} of {valid.sum()} poses"
    note = f"Took the nearest rigid motion in place of {of_all} that departed from one by up to {error.max():.2g}."
    return poses, valid, [note] if turned.any() else []

"""Deformation of tissue by the probe: compression along the beam, and drag of the skin.

Both change the place in the tissue that a sample of the picture shows, never the pose of the probe. Compressed tissue
does not expand to the sides in this model.
"""

from __future__ import annotations

import numpy as np

from DualTrackCore.research.simulation.acquisition import Contact

#: Depth over which the drag of the skin falls by a factor e, mm.
_DRAG_DEPTH_MM = 8.0
#: Smallest and largest frequency of the changes of pressure.
_PRESSURE_HZ = (0.05, 0.2)
#: Smallest and largest part of the probe's motion that sticking skin follows.
_STICKING = (0.4, 0.95)


class Deformation:
    """The tissue under each frame of one sweep.

    Args:
        contact: how much the probe presses and drags.
        poses: [N, 4, 4] frame0_from_image, mm.
        face_mm: [3] centre of the probe's face, image frame.
        frame_rate_hz: frames a second.
        seed: equal seeds give equal deformations.

    Attributes:
        strain: [N] compression along the beam, as a part of the length.
        drag_mm: [N, 3] displacement of the skin, frame0.
    """

    def __init__(
        self, contact: Contact, poses: np.ndarray, face_mm: np.ndarray, frame_rate_hz: float, seed: int
    ) -> None:
        random = np.random.default_rng([seed, 0xDEF0])
        self._face_mm = face_mm
        start, rate = random.uniform(0, 2 * np.pi), random.uniform(*_PRESSURE_HZ)
        phase = start + 2 * np.pi * rate * np.arange(len(poses)) / frame_rate_hz
        self.strain = contact.compression * (0.5 - 0.5 * np.cos(phase))
        path = (poses[:, :3, :3] @ face_mm + poses[:, :3, 3]) * (1, 0, 1)  # the skin lies in x and z
        self.drag_mm = _drags(path, contact.drag_mm, random)

    def compressed(self, frame0_from_image: np.ndarray, index: int) -> np.ndarray:
        """[4, 4] affine map from the image of frame `index` to uncompressed tissue, frame0, mm."""
        stretch = 1 / (1 - self.strain[index])
        decompressed = np.eye(4)
        decompressed[1, 1], decompressed[1, 3] = stretch, self._face_mm[1] * (1 - stretch)
        return frame0_from_image @ decompressed

    def drag_at(self, depth_mm: np.ndarray, index: int) -> np.ndarray:
        """[3, samples] displacement by drag at depths [samples] in frame `index`, frame0, mm."""
        return np.multiply.outer(self.drag_mm[index], np.exp(-depth_mm / _DRAG_DEPTH_MM))


def _drags(path_mm: np.ndarray, limit_mm: float, random: np.random.Generator) -> np.ndarray:
    """[N, 3] drag of the skin under a path [N, 3]: it sticks and follows in part up to a limit, then slides back.

    Drag depends on the length of the path, not on time: a probe at rest changes nothing.
    """
    drags = np.zeros_like(path_mm)
    if not limit_mm:
        return drags
    drag, sticks = np.zeros(3), True
    follows, limit = random.uniform(*_STICKING), limit_mm * random.uniform(0.5, 1)
    for index, step in enumerate(np.diff(path_mm, axis=0), start=1):
        if sticks:
            drag = drag + follows * step
            size = np.linalg.norm(drag)
            if size >= limit:
                drag, sticks = drag * (limit / size), False
        else:
            drag = drag * np.exp(-np.linalg.norm(step) / limit)
            if np.linalg.norm(drag) < 0.1 * limit:
                follows, limit, sticks = random.uniform(*_STICKING), limit_mm * random.uniform(0.5, 1), True
        drags[index] = drag
    return drags

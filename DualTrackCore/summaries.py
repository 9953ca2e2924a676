"""How sweeps, trajectories and volumes show themselves in a console and in a notebook."""

from __future__ import annotations

import base64
import html
import io
from abc import ABC, abstractmethod

import numpy as np

#: Longest side of a thumbnail, pixels.
_THUMBNAIL_PIXELS = 160


class Summarised(ABC):
    """Something large that a console shows as one line, and a notebook as a small table with a picture."""

    @abstractmethod
    def _summary(self) -> dict[str, str]:
        """What it is, by name: sizes, spacing, range, origin; facts that are not known are left out."""

    @abstractmethod
    def _thumbnail(self) -> np.ndarray | None:
        """[rows, columns] uint8, or None where there is nothing to see."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._summary().values())})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
            for name, text in self._summary().items()
        )
        picture = self._thumbnail()
        shown = "" if picture is None else f"<img alt='' src='data:image/png;base64,{_png(picture)}'>"
        name = f"<b>{type(self).__name__}</b>"
        return (
            f"<div style='display:flex;gap:1em;align-items:center'>{shown}<div>{name}<table>{rows}</table></div></div>"
        )


def drawn_path(points: np.ndarray) -> np.ndarray | None:
    """A path seen so that most of it shows: black on white, the first point marked.

    Args:
        points: [N, 3], mm; all finite.
    """
    centred = points - points.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    seen = centred @ axes[:2].T
    extent = np.ptp(seen, axis=0).max()
    if not extent > 0:
        return None
    from PIL import Image, ImageDraw

    margin = _THUMBNAIL_PIXELS // 10
    scale = (_THUMBNAIL_PIXELS - 2 * margin) / extent
    places = ((seen - seen.min(axis=0)) * scale + margin).round().astype(int)
    size = tuple(int(side) for side in places.max(axis=0) + margin)
    image = Image.new("L", size, 255)
    pen = ImageDraw.Draw(image)
    pen.line([tuple(place) for place in places.tolist()], fill=0, width=2)
    x, y = places[0].tolist()
    pen.ellipse([x - 4, y - 4, x + 4, y + 4], fill=90)
    return np.asarray(image)


def _png(picture: np.ndarray) -> str:
    """Base64 of a picture of thumbnail size."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture))
    image.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")

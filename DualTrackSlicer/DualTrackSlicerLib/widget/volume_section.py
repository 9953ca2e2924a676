"""The volume: voxels and memory before anything is computed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
from slicer.i18n import tr as _

from DualTrackCore.errors import InputError
from DualTrackCore.reconstruction.grid import BYTES_A_VOXEL
from DualTrackCore.run.settings import NETWORK, VOLUME
from DualTrackSlicerLib.parameters import Area, Poses, givenFan, settingGroup, settingOfParameter
from DualTrackSlicerLib.region import fanOutline
from DualTrackSlicerLib.widget.controls import enable
from DualTrackSlicerLib.widget.texts import sizeText

if TYPE_CHECKING:
    from DualTrackSlicerLib.scene import Clip
    from DualTrackSlicerLib.widget.panel import Panel


class VolumeSection:
    """Voxel size, compounding, hole filling; whether there is a volume at all."""

    def __init__(self, panel: Panel) -> None:
        self.panel, self.ui = panel, panel.ui
        # Widgets of settings by the group of the setting.
        self._widgets = {group: [] for group in (NETWORK, VOLUME)}
        for widget in vars(self.ui).values():
            name = settingOfParameter(widget.property("SlicerParameterName"))
            if name is not None and settingGroup(name) in self._widgets:
                self._widgets[settingGroup(name)].append(widget)

    def update(self) -> None:
        """Show the estimate, and what does not apply."""
        parameters = self.panel.parameters
        volume = "" if parameters.makeVolume else _("Tick “Make a volume” under Advanced first.")
        network = _("Poses that are given need no network.") if parameters.poses is Poses.TRACKED else ""
        for group, reason in ((VOLUME, volume), (NETWORK, network)):
            enable(reason, *self._widgets[group])
        self.ui.estimateLabel.text = self._estimate()

    def _estimate(self) -> str:
        parameters, clip = self.panel.parameters, self.panel.clip()
        if not parameters.makeVolume:
            return _("No volume is made: only the path of the probe is estimated.")
        spacing = parameters.spacingX, parameters.spacingY
        if clip is None or clip.problem or min(spacing) <= 0:
            return _("The size is shown once a clip with known pixel size is chosen.")
        if exact := self._as_last_time():
            return exact
        columns, rows = self._area(clip)
        # The core never makes automatic voxels finer than the longer side of a pixel.
        voxel = parameters.voxelSize or max(spacing)
        across, down = (round(n * mm / voxel) + 1 for n, mm in zip((columns, rows), spacing, strict=True))
        per_centimetre = across * down * (10 / voxel) * BYTES_A_VOXEL
        text = (
            _("At most {across} x {down} voxels a slice, and up to {memory} of memory for each centimetre of sweep.")
            if not parameters.voxelSize
            else _("About {across} x {down} voxels a slice, and {memory} of memory for each centimetre of sweep.")
        )
        return text.format(across=across, down=down, memory=sizeText(per_centimetre))

    def _area(self, clip: Clip) -> tuple[int, int]:
        """Columns and rows of the picture area; the whole frame where it is found only later."""
        parameters, (width, height) = self.panel.parameters, clip.size
        if parameters.area is Area.GIVEN and parameters.areaWidth and parameters.areaHeight:
            return min(parameters.areaWidth, width), min(parameters.areaHeight, height)
        if parameters.area is Area.FAN and parameters.fanStop > 0:
            with contextlib.suppress(InputError):
                around = np.clip(fanOutline(givenFan(parameters)), 0, [width, height])
                across, down = np.ptp(around, axis=0)
                return round(across), round(down)
        return width, height

    def _as_last_time(self) -> str:
        """From the sweep of the last run, if it was of this clip: its extent is known then."""
        result = self.panel.runSection.shownResult()
        if result is None or result.grid is None:
            return ""
        grid = result.grid
        voxel = self.panel.parameters.voxelSize or grid.spacing_mm[0]
        x, y, z = (round((n - 1) * mm / voxel) + 1 for n, mm in zip(grid.size, grid.spacing_mm, strict=True))
        text = _("About {x} x {y} x {z} voxels of {voxel:.3g} mm, {memory} of memory, as the last sweep went.")
        return text.format(x=x, y=y, z=z, voxel=voxel, memory=sizeText(x * y * z * BYTES_A_VOXEL))

"""Between the scene and the core: clips out of sequence browsers, results into nodes.

Plain functions over MRML nodes. Nothing here imports qt, and nothing needs the application.
"""

from DualTrackSlicerLib.scene.display import (
    FrameFollower,
    fadeVolumes,
    fitSliceViews,
    followFrame,
    layFrameOver,
    renderVolume,
)
from DualTrackSlicerLib.scene.input import Clip, SceneSweep, clips, framesOf, sequenceFromVolume, sweepFromBrowser
from DualTrackSlicerLib.scene.paths import colourTrajectory, showErrorTube
from DualTrackSlicerLib.scene.records import reportOf, secondsOf
from DualTrackSlicerLib.scene.results import (
    ResultNodes,
    compareResults,
    removeResults,
    resultsOf,
    shownResult,
    showResult,
    showResults,
    turnOver,
)
from DualTrackSlicerLib.scene.tables import trajectoryFromTable

__all__ = [
    "Clip",
    "FrameFollower",
    "ResultNodes",
    "SceneSweep",
    "clips",
    "colourTrajectory",
    "compareResults",
    "fadeVolumes",
    "fitSliceViews",
    "followFrame",
    "framesOf",
    "layFrameOver",
    "removeResults",
    "renderVolume",
    "reportOf",
    "resultsOf",
    "secondsOf",
    "sequenceFromVolume",
    "showErrorTube",
    "showResult",
    "showResults",
    "shownResult",
    "sweepFromBrowser",
    "trajectoryFromTable",
    "turnOver",
]

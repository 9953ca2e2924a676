"""Between the scene and the core: clips out of sequence browsers, results into nodes.

Plain functions over MRML nodes. Nothing here imports qt, and nothing needs the application.
"""

from DualTrackCore import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "behind": ["Behind", "FramesBehind", "framesBehind", "pixelAt"],
        "expected": ["hideExpectedError", "layErrorOver", "showExpectedError"],
        "display": ["FrameFollower", "fadeVolumes", "fitSliceViews", "layFrameOver", "renderVolume"],
        "exports": ["exportFiles", "exportInPieces", "measureRows"],
        "input": ["Clip", "SceneSweep", "clips", "sweepFromBrowser", "sweepInPieces"],
        "landmarks": ["LANDMARKS", "TRACKER", "addLandmarks", "bindMarks", "landmarkLists", "marksOf", "placeMarks"],
        "measures": [
            "ResultMeasures",
            "Target",
            "forget",
            "kept",
            "measure",
            "measuresIn",
            "targetsIn",
        ],
        "paths": ["colourTrajectory", "showErrorTube"],
        "prepared": ["Frame", "frameOf", "framesInPieces"],
        "records": ["clip_in_pieces", "path_in_pieces", "reportOf", "secondsOf"],
        "result_nodes": ["ResultNodes"],
        "results": [
            "baseOf",
            "compareResults",
            "removeResults",
            "resultsOf",
            "showInPieces",
            "shownResult",
            "showResult",
            "showResults",
            "turnOver",
            "turnOverInPieces",
        ],
        "slices": ["clipFromVolume", "copyInPieces", "removeClip", "sequenceFromVolume"],
        "tables": ["trajectoryFromTable"],
        "tracking": ["trackingSequences"],
    },
)

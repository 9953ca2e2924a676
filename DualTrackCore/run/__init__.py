"""One run, from a clip to its trajectory, volume and report: the only way there, for every front end."""

from typing import TYPE_CHECKING

from DualTrackCore import lazy_exports

if TYPE_CHECKING:
    from DualTrackCore.run.pipeline import run as run
    from DualTrackCore.run.results import RunReport as RunReport
    from DualTrackCore.run.results import RunResult as RunResult
    from DualTrackCore.run.settings import RunSettings as RunSettings

__getattr__, __dir__, __all__ = lazy_exports(
    __name__, {"pipeline": ["run"], "results": ["RunReport", "RunResult"], "settings": ["RunSettings"]}
)

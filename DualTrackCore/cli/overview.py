"""What `dualtrack info` says of a sweep: how it was read, where each fact is from, and what a run still needs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from DualTrackCore.cli.console import plural
from DualTrackCore.io.sequence_parts import parse_orientation
from DualTrackCore.path_error import TRUST, path_error, trust_line
from DualTrackCore.repeats import Repeats
from DualTrackCore.sweep import Sweep

if TYPE_CHECKING:
    from DualTrackCore.reconstruction.detect import ImageArea

#: Settings that the sweep lacks, and the options that give them.
_SPACING_OPTIONS = ("--spacing", "--depth-mm", "--calibration")

#: What stands behind facts of the scanner.
_UNITS = {"frequency_mhz": " MHz", "depth_mm": " mm deep"}

#: An area of this much of the picture is called the whole: nothing is drawn around it.
_WHOLE_PERCENT = 95

_SOURCES = {
    "file": "from the file",
    "user": "as given with --spacing",
    "calibration": "from the calibration",
    "depth": "from the depth, as given with --depth-mm",
}


def overview_facts(sweep: Sweep, area: ImageArea | None) -> dict[str, Any]:
    """The facts for machines that :func:`~DualTrackCore.run.results.sweep_facts` does not have.

    Args:
        sweep: as it was read.
        area: of its pictures that shows ultrasound; None where it was not found.
    """
    provenance = sweep.provenance
    return {
        "format": provenance.get("format"),
        "spacing_source": provenance.get("spacing_source", "unknown"),
        "rate_source": "unknown" if sweep.timestamps_s is None else provenance.get("rate_source", "file"),
        "rate_field": provenance.get("rate_field"),
        "orientation": provenance.get("orientation"),
        "image_area": None if area is None else asdict(area),
        "trust": _trust_line(sweep),
        "notes": list(provenance.get("conversions", ())),
        "missing": _missing(sweep),
    }


def info_rows(sweep: Sweep, area: ImageArea | None, repeats: Repeats) -> list[tuple[str, str]]:
    """Name and text of each fact, for people."""
    height, width = sweep.frame_size
    size = f"{len(sweep)} of {width} x {height} pixels (width x height)"
    rows = [
        ("format", str(sweep.provenance.get("format", "unknown"))),
        ("frames", size if sweep.has_images else f"{len(sweep)}, without pictures"),
    ]
    if missing := int((~sweep.frame_valid).sum()):
        rows.append(("lost pictures", f"{plural(missing, 'frame')} without a picture, as the recorder marked them"))
    if scanner := sweep.provenance.get("scanner"):
        rows.append(("scanner", ", ".join(f"{value}{_UNITS.get(name, '')}" for name, value in scanner.items())))
    rows += _spacing_rows(sweep)
    rows.append(("frame rate", _rate_text(sweep)))
    if repeats:
        rows.append(("repeats", _repeats_text(repeats.facts(sweep))))
    rows += [("stands still", f"frames {text}") for text in repeats.still_texts(sweep)]
    if sweep.has_images:
        rows += [("orientation", _orientation_text(sweep)), ("image area", _area_text(sweep, area))]
        rows += [("pictures", note) for note in sweep.provenance["prepared"]["done"]]
    rows.append(_poses_row(sweep))
    if line := _trust_line(sweep):
        rows.append(("trust", line))
    doubts = sweep.provenance.get("warnings", ())
    rows += [("warning" if note in doubts else "noted", note) for note in sweep.provenance.get("conversions", ())]
    needs = _missing(sweep)
    rows += [("missing", f"{need['what']}: {need['remedy']}") for need in needs]
    return rows if needs else [*rows, ("ready", "yes, a run can start: dualtrack run SWEEP -o FOLDER")]


def _trust_line(sweep: Sweep) -> str:
    """What the poses of a sweep are good for, or those that a volume was made with; empty where nothing says it."""
    return str(sweep.provenance.get(TRUST, "")) if sweep.tracked is None else trust_line(sweep.tracked)


def _missing(sweep: Sweep) -> list[dict[str, Any]]:
    """What a run that estimates the path cannot start without."""
    needs = []
    if not sweep.has_images:
        return [{"what": "pictures", "options": [], "remedy": "choose the recording that has the frames"}]
    if len(sweep) < 2:
        needs.append({"what": "a second frame", "options": [], "remedy": "one picture alone shows no motion"})
    if sweep.spacing_mm is None:
        remedy = "give --depth-mm MM (the depth on the scanner), --spacing MM (of a pixel) or --calibration FILE"
        needs.append({"what": "pixel size", "options": list(_SPACING_OPTIONS), "remedy": remedy})
    return needs


def _spacing_rows(sweep: Sweep) -> list[tuple[str, str]]:
    if sweep.spacing_mm is None:
        return [("pixel size", "not known")]
    (height, width), (across, down) = sweep.frame_size, sweep.spacing_mm
    source = sweep.provenance.get("spacing_source", "unknown")
    text = _SOURCES.get(source, "nobody says from where")
    if source == "calibration":
        text += f" {sweep.provenance.get('calibration')}"
    rows = [("pixel size", f"{across:.5g} x {down:.5g} mm (width x height), {text}")]
    return [*rows, ("picture size", f"{across * width:.1f} x {down * height:.1f} mm (width x depth)")]


def _rate_text(sweep: Sweep) -> str:
    if sweep.timestamps_s is None or len(sweep) < 2:
        return "not known; a run does without it"
    field = sweep.provenance.get("rate_field")
    source = "from the file" + (f" ({field})" if field else "")
    if sweep.frame_rate_hz is None:
        return f"not known: the times do not advance, {source}"
    return f"{sweep.frame_rate_hz:.3g} frames a second, {sweep.duration_s:.3g} s in all, {source}"


def _repeats_text(facts: dict[str, Any]) -> str:
    frames, pictures = facts["frames"], facts["pictures"]
    text = f"{frames} of {plural(frames + pictures, 'frame')} show the picture before them again"
    rate = "" if facts["pictures_hz"] is None else f", {facts['pictures_hz']:.3g} a second"
    return f"{text}; {pictures} different pictures{rate}"


def _orientation_text(sweep: Sweep) -> str:
    orientation = parse_orientation(sweep.provenance.get("orientation"))
    if not orientation.known:
        return "not stated; the probe is taken to be at the top: check it in a viewer"
    place = "the probe at the top and its marked side at the left"
    stated = f"{orientation.code} in the file"
    return f"turned to have {place} ({stated})" if orientation.is_turned else f"{place} ({stated})"


def _area_text(sweep: Sweep, area: ImageArea | None) -> str:
    if area is None:
        return "not found: the pictures are black, or nothing in them changes"
    x, y, columns, rows = area.clip
    height, width = sweep.frame_size
    sure = f", confidence {area.confidence:.0%}"
    if area.fan is not None:
        left, right = area.fan.angles_deg
        return (
            f"a fan of {right - left:.0f} degrees, as of a curved or a phased probe{sure} (--fan auto takes it alone)"
        )
    share = round(100 * (columns + 1) * (rows + 1) / (width * height))
    if share >= _WHOLE_PERCENT:
        return f"the whole picture{sure}"
    return (
        f"columns {x} to {x + columns}, rows {y} to {y + rows}: {share} % of the picture{sure} "
        f"(--clip {x},{y},{columns},{rows} takes it alone, --crop {x},{y},{columns + 1},{rows + 1} for the network too)"
    )


def _poses_row(sweep: Sweep) -> tuple[str, str]:
    if sweep.tracked is None:
        return "tracking", str(sweep.provenance.get("tracking") or "none")
    valid = int(sweep.tracked.valid.sum())
    what = f"{sweep.tracked.origin.value} poses" if sweep.truth is None else "tracking"
    error = path_error(sweep.tracked)
    sure = "" if error is None else f" {error.text}"
    path = f"path {sweep.tracked.path_length_mm:.1f} mm{sure}, {sweep.tracked.origin_text}"
    return what, f"{valid} of {len(sweep)} frames, {path}"

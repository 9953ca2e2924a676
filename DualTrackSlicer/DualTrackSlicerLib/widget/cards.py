"""What the card of a result says: functions of its report alone; no qt here."""

from __future__ import annotations

import html

from slicer.i18n import tr as _

from DualTrackCore.errors import InputError
from DualTrackCore.path_error import CORRECTIONS
from DualTrackCore.run.results import RunReport
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.trajectory import PoseOrigin
from DualTrackSlicerLib.scene import ResultNodes, reportOf, secondsOf
from DualTrackSlicerLib.widget.texts import directionText, durationText, listText, rowsText, trustText


def titleText(nodes: ResultNodes) -> str:
    """One line for a list of results, what tells them apart first: time, mean error or length, model, name."""
    try:
        report = reportOf(nodes)
    except InputError:
        return nodes.name
    errors, date = _errors(report), report.created[:16].replace("T", " ")
    length = _("{length:.1f} mm").format(length=report.trajectory["path_length_mm"])
    figure = length if errors is None else _("error {error:.1f} mm").format(error=errors[0])
    return ", ".join([date, figure, _model(report), nodes.name])


def cardRows(report: RunReport, seconds: float | None) -> list[tuple[str, str]]:
    """The lines of the card of a result that took some seconds."""
    path = report.trajectory
    rows = [(_("Length of the sweep"), lengthText(report))]
    if path["trust"] is not None:
        rows.append((_("Trust"), trustText(path["trust"])))
    rows.append((_("Frames"), str(path["poses"])))
    if (volume := report.volume) is not None:
        size, sides = " x ".join(str(n) for n in volume["size"]), volume["spacing_mm"]
        # One number for cubic voxels.
        spacing = " x ".join(f"{mm:.3g}" for mm in (sides if len(set(sides)) > 1 else sides[:1]))
        rows.append((_("Volume"), _("{size} voxels of {spacing} mm").format(size=size, spacing=spacing)))
        rows.append((_("Coverage"), _("{seen:.0%} of the box was seen").format(seen=volume["covered_fraction"])))
    if (errors := _errors(report)) is not None:
        text = _("{own:.1f} mm on average ({still:.1f} mm for no motion at all)")
        simulated = report.sweep["poses_origin"] == PoseOrigin.SIMULATED.value
        against = _("Error against the simulation") if simulated else _("Error against the tracker")
        rows.append((against, text.format(own=errors[0], still=errors[1])))
    if path["direction"] is not None:
        rows.append((_("Direction"), directionText(path["direction"])))
    corrected = _("Corrected, {kind}")
    rows += [(corrected.format(kind=entry["kind"]), entry["text"]) for entry in path["source"].get(CORRECTIONS, ())]
    rows.append((_("Model"), _model(report)))
    if seconds is not None:
        rows.append((_("Time"), durationText(seconds)))
    return rows


def lengthText(report: RunReport) -> str:
    """The length of the path, and how sure it is where anything says so."""
    text, error = _("{length:.1f} mm").format(length=report.trajectory["path_length_mm"]), report.trajectory["error"]
    if error is None:
        return text
    if error["length_95_mm"] is None:
        return _("{length} (error not known)").format(length=text)
    by_model, by_rule = _("{length} ± {most:.1f} mm (95 %)"), _("{length} ± {most:.1f} mm (95 %, by rule of thumb)")
    form = by_model if error["rule_percent"] is None else by_rule
    return form.format(length=text, most=error["length_95_mm"])


def warningsOf(report: RunReport) -> list[str]:
    """Warnings about the result, the gravest first."""
    errors = _errors(report)
    if errors is None or errors[0] < errors[1]:
        return list(report.warnings)
    return [_("The estimate is no better than assuming no motion at all: do not use this volume."), *report.warnings]


def comparedText(nodes: ResultNodes, other: ResultNodes) -> str:
    """The figures of two results side by side, as rich text."""
    one, two = (_figures(result) for result in (nodes, other))
    head = "".join(f"<td><b>{html.escape(result.name)}</b></td>" for result in (nodes, other))
    rows = [f"<tr><td></td>{head}</tr>"]
    for name in dict.fromkeys([*one, *two]):
        cells = (html.escape(text) for text in (name, one.get(name, "–"), two.get(name, "–")))
        rows.append("<tr>" + "".join(f"<td style='padding-right:12px'>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table>{''.join(rows)}</table>"


def pageTexts(nodes: ResultNodes) -> tuple[str, str]:
    """One page on a result, as plain text and as HTML. Raises InputError: it was made by another version."""
    report = reportOf(nodes)
    sweep, first = report.sweep, report.sweep["first_frame"]
    height, width = sweep["frame_size"]
    frames = _("{first} to {last}, {width} x {height} pixels").format(
        first=first, last=first + sweep["frames"] - 1, width=width, height=height
    )
    rows = [(_("Clip"), str(sweep["provenance"].get("source"))), (_("Frames used"), frames)]
    if sweep["spacing_mm"] is not None:
        x, y = sweep["spacing_mm"]
        rows.append((_("Pixel size"), _("{x:.4g} x {y:.4g} mm").format(x=x, y=y)))
    changed = [name for name in RunSettings.from_dict(report.settings).changed() if name != "corrections"]
    settings = ", ".join(f"{name}: {report.settings[name]}" for name in changed) or _("all as they are at first")
    made = _("{date}, DualTrack {version}").format(date=report.created, version=report.dualtrack_version)
    rows += [*cardRows(report, secondsOf(nodes)), (_("Settings changed"), settings), (_("Made"), made)]
    title, warnings = _("{name}: tracked by DualTrack").format(name=nodes.name), warningsOf(report)
    lines = [title, *(f"{name}: {value}" for name, value in rows), *(f"- {text}" for text in warnings), report.notice]
    page = f"<h3>{html.escape(title)}</h3>{rowsText(rows)}{listText(warnings)}<p>{html.escape(report.notice)}</p>"
    return "\n".join(lines), page


def _figures(nodes: ResultNodes) -> dict[str, str]:
    try:
        return dict(cardRows(reportOf(nodes), secondsOf(nodes)))
    except InputError as error:
        return {_("Result"): str(error)}


def _model(report: RunReport) -> str:
    origin = PoseOrigin(report.trajectory["origin"])
    none = _("none: tracked") if origin.is_truth else _("none: poses of unknown origin")
    return report.trajectory["source"].get("model") or none


def _errors(report: RunReport) -> tuple[float, float] | None:
    """Mean error of the estimate and of no motion, mm; None where there is nothing to compare with."""
    if report.evaluation is None or report.settings["poses"] == "tracked":
        return None
    own = report.evaluation["metrics"].get("gpe_mm")
    still = report.evaluation["baselines"]["identity"].get("gpe_mm")
    return None if own is None or still is None else (own, still)

"""The JSON Schema files that ship, made from the dataclasses and tables whose values the files hold.

`python Testing/Core/json_schemas.py` writes them anew; a test fails where they are not what is made here.
"""

import dataclasses
import inspect
import re
import types
import typing
from pathlib import Path

from DualTrackCore.cli.console import JSON_VERSION
from DualTrackCore.evaluation import COMPONENTS, METRICS
from DualTrackCore.files import json_text
from DualTrackCore.path_error import AS_WEIGHTS_SAY, SURE, TOLD, UNSURE, TrustLevel
from DualTrackCore.reconstruction.detect import ImageArea
from DualTrackCore.research.comparison import table_files
from DualTrackCore.research.comparison.summaries import SHOWN, TESTED, Pair
from DualTrackCore.run import RunReport, RunSettings, results
from DualTrackCore.settings import setting_of
from DualTrackCore.trajectory import PoseOrigin

FOLDER = Path(__file__).resolve().parents[2] / "Docs/schemas"
_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string", type(None): "null"}
_LIMITS = {"at_least": "minimum", "at_most": "maximum", "above": "exclusiveMinimum", "below": "exclusiveMaximum"}

TEXT, NUMBER, FLAG, ANYTHING = {"type": "string"}, {"type": "number"}, {"type": "boolean"}, {"type": "object"}
COUNT, TEXTS = {"type": "integer", "minimum": 0}, {"type": "array", "items": TEXT}
MAYBE_NUMBER = {"type": ["number", "null"]}
ORIGINS = [origin.value for origin in PoseOrigin]
DIRECTIONS = [SURE, UNSURE, TOLD, AS_WEIGHTS_SAY, None]


def numbers(count, kind="number"):
    return {"type": "array", "items": {"type": kind}, "minItems": count, "maxItems": count}


def maybe(schema):
    return {"anyOf": [schema, {"type": "null"}]}


def described(schema, text):
    return {"description": text, **schema} if text else schema


def fields(required, optional=None):
    """An object with these fields; a consumer has to let others pass, as they may come within a version."""
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}


def of_type(hint, facts):
    """The schema of an annotated value; limits are those of a setting."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [of_type(part, facts) for part in parts]}
    if origin is typing.Literal:
        return {"enum": list(parts)}
    if origin is tuple and Ellipsis in parts:
        return {"type": "array", "items": of_type(parts[0], facts)}
    if origin is tuple:
        return {**numbers(len(parts)), "items": of_type(parts[0], facts)}
    if origin is list:
        return {"type": "array", "items": of_type(parts[0], facts)}
    if dataclasses.is_dataclass(hint):
        return of_dataclass(hint)
    limits = {name: getattr(facts, limit) for limit, name in _LIMITS.items() if getattr(facts, limit) is not None}
    return {"type": _TYPES[hint], **(limits if hint in (int, float) else {})}


def of_dataclass(kind, **given):
    """The schema of a dataclass; `given` are those of fields whose annotation says too little."""
    hints, texts, properties = typing.get_type_hints(kind), attributes(kind), {}
    for field in dataclasses.fields(kind):
        facts = setting_of(field)
        text = f"{facts.help}, {facts.unit}" if facts.unit else facts.help or texts.get(field.name, "")
        schema = given.get(field.name) or of_type(hints[field.name], facts)
        properties[field.name] = described(schema, text)
    return fields(properties)


def attributes(kind):
    """What the docstring says of each attribute."""
    _, _, text = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    found = {}
    for names, words in re.findall(r"^ {4}(\w[\w, ]*):((?:.|\n {8})*)", text, re.MULTILINE):
        words = re.sub(r":\w+:`~?(?:\w+\.)*(\w+)`", r"\1", " ".join(words.split()))
        found |= dict.fromkeys(names.split(", "), words)
    return found


FIGURES = {"$ref": "#/$defs/figures"}
SWEEP = {
    "frames": COUNT,
    "frame_size": described(numbers(2, "integer"), "rows, columns"),
    "frames_without_image": COUNT,
    "spacing_mm": described(maybe(numbers(2)), "of columns, of rows; null where it is not known"),
    "skew_deg": NUMBER,
    "duration_s": MAYBE_NUMBER,
    "frame_rate_hz": MAYBE_NUMBER,
    "tracked_frames": described(maybe(COUNT), "frames with a true pose; null where no true poses are known"),
    "poses_origin": {"enum": [*ORIGINS, None]},
    "path_length_mm": MAYBE_NUMBER,
    "repeats": described(
        maybe(
            fields(
                {
                    "frames": described(COUNT, "those that show the picture before them again"),
                    "pictures": described(COUNT, "those that show a new one"),
                    "pictures_hz": described(
                        MAYBE_NUMBER, "new pictures a second where the picture does not stand still"
                    ),
                    "still": described(
                        {"type": "array", "items": numbers(2, "integer")},
                        "first and last of the repeats, from 0, of each stretch in which the picture stands still",
                    ),
                }
            )
        ),
        "null where nobody looked for them",
    ),
    "prepared": described(
        maybe(
            fields(
                {
                    "rotate": {"enum": [0, 90, 180, 270]},
                    "mirror": FLAG,
                    "crop": maybe(numbers(4, "integer")),
                    "depth_mm": MAYBE_NUMBER,
                    "area": maybe(of_dataclass(ImageArea)),
                    "masked": {"type": "array", "items": numbers(4, "integer")},
                    "done": described(TEXTS, "the same in sentences"),
                }
            )
        ),
        "what was done to the pictures before they were tracked; rectangles are x, y, width, height in pixels of the "
        "turned and mirrored picture before the crop; null where nobody prepared them",
    ),
    "provenance": described(ANYTHING, "what the reader found and did; its fields depend on the format"),
}
TRAJECTORY = {
    "poses": COUNT,
    "valid_poses": COUNT,
    "path_length_mm": NUMBER,
    "origin": {"enum": ORIGINS},
    "error": described(
        maybe(
            fields(
                {
                    "text": described(TEXT, "for people, to be put after the length of the path"),
                    "basis": {"enum": ["model", "rule of thumb"]},
                    "rule_percent": described(MAYBE_NUMBER, "of the path; null where the model itself says it"),
                    "length_sd_mm": described(MAYBE_NUMBER, "standard deviation; null where it is not known"),
                    "length_95_mm": described(MAYBE_NUMBER, "half of the interval that holds 95 % of true lengths"),
                    "largest_radius_95_mm": described(
                        MAYBE_NUMBER, "of the ball around an image centre that holds the true one with 95 %"
                    ),
                }
            )
        ),
        "how sure the path is; null where nothing says it, as of measured poses",
    ),
    "trust": described(
        maybe(fields({"level": {"enum": list(typing.get_args(TrustLevel))}, "reasons": TEXTS, "text": TEXT})),
        "what the path is good for, and why no more; null for poses that nobody estimated",
    ),
    "turns": described(
        {"type": "array", "items": COUNT}, "frames, of those used, at which the pictures run back; looked for in runs"
    ),
    "direction": described({"enum": DIRECTIONS}, "how it is known which way the sweep runs; null for given poses"),
    "source": described(ANYTHING, "provenance of the poses: model, weights_sha256, device, warnings, ..."),
}
VOLUME = {
    "size": described(numbers(3, "integer"), "voxels along x, y, z"),
    "spacing_mm": numbers(3),
    "origin_mm": numbers(3),
    "description": TEXT,
    "covered_fraction": NUMBER,
    "filled_fraction": NUMBER,
    "frames_used": COUNT,
    "frames_skipped": COUNT,
    "settings": ANYTHING,
}
FIGURE_TEXTS = {name: described(MAYBE_NUMBER, f"{m.title}: {m.definition}") for name, m in METRICS.items()}
OVERVIEW = {
    "format": maybe(TEXT),
    "spacing_source": TEXT,
    "rate_source": TEXT,
    "rate_field": described(maybe(TEXT), "where in the file the times are from"),
    "orientation": described(maybe(TEXT), "as the file states it"),
    "image_area": maybe(of_dataclass(ImageArea)),
    "trust": described(TEXT, "what the poses in the file are good for; empty where nothing says it"),
    "notes": described(TEXTS, "what was done on reading"),
    "missing": {"type": "array", "items": fields({"what": TEXT, "options": TEXTS, "remedy": TEXT})},
}
PER_FRAME = {"type": "array", "items": MAYBE_NUMBER}
EVALUATION = {
    "frames": COUNT,
    "frames_used": COUNT,
    "landmarks_used": COUNT,
    "reference_frame": COUNT,
    "metrics": FIGURES,
    "baselines": {"type": "object", "additionalProperties": FIGURES},
    "per_frame": fields(dict.fromkeys(("global_error_mm", "local_error_mm", "drift_mm"), PER_FRAME)),
}
ROW = {
    "sweep": TEXT,
    "method": TEXT,
    "frames": COUNT,
    "frames_used": COUNT,
    "true_poses": {"enum": [*ORIGINS, ""]},
    "guess": described(FLAG, "whether the model never saw sweeps of this kind"),
    "trust": described(TEXT, "what the estimate of a model is good for; empty for other methods"),
    "warnings": described(TEXT, "sentences of the estimate, with | between them"),
    "error": described(TEXT, "why the method failed; empty where it did not"),
    "seconds_per_frame": MAYBE_NUMBER,
    "peak_mebibytes": MAYBE_NUMBER,
    **dict.fromkeys(SHOWN, MAYBE_NUMBER),
}
METHOD = {
    "method": TEXT,
    "uses": TEXT,
    "sweeps": COUNT,
    "failed": COUNT,
    "guesses": COUNT,
    "parameters": MAYBE_NUMBER,
    "failed_on": TEXTS,
    "model": maybe(ANYTHING),
    "trust": described(
        {"type": "object", "additionalProperties": COUNT}, "number of sweeps by what estimates are good for, and why"
    ),
    "warnings": described({"type": "object", "additionalProperties": COUNT}, "number of sweeps by each warning"),
}
METHOD |= dict.fromkeys((f"pooled_correlation_{name}" for name in COMPONENTS), MAYBE_NUMBER)
METHOD |= dict.fromkeys((*SHOWN, "seconds_per_frame", "peak_mebibytes"), MAYBE_NUMBER)
#: What else a method has of each figure.
OF_FIGURES = {
    "^.+_(median|low|high|on_common_sweeps)$": MAYBE_NUMBER,
    f"^({'|'.join((*SHOWN, 'seconds_per_frame', 'peak_mebibytes'))})_sweeps$": COUNT,
}


def headed(name, version, title, schema):
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, "$id": f"urn:dualtrack:{name}:{version}", "title": title, **schema}


def schemas():
    """The schema of each file, by the file's name."""
    report = of_dataclass(
        RunReport,
        settings=of_dataclass(RunSettings),
        sweep=fields({"first_frame": COUNT, **SWEEP}),
        trajectory=fields(TRAJECTORY),
        volume=maybe(fields(VOLUME)),
        evaluation=maybe(fields(EVALUATION)),
        schema_version={"const": results.SCHEMA_VERSION},
    )
    report["$defs"] = {"figures": described(fields(FIGURE_TEXTS), "null where undefined")}
    pair = of_dataclass(
        Pair, metric={"enum": list(TESTED)}, **dict.fromkeys(("median_difference", "p", "p_holm"), MAYBE_NUMBER)
    )
    evaluation = fields(
        {
            "schema_version": {"const": table_files.SCHEMA_VERSION},
            "dualtrack_version": TEXT,
            "notice": TEXT,
            "files": TEXTS,
            "data_set": TEXT,
            "sweeps_compared": TEXT,
            "true_poses": {"type": "object", "propertyNames": {"enum": ORIGINS}, "additionalProperties": COUNT},
            "methods": {"type": "array", "items": {**fields(METHOD), "patternProperties": OF_FIGURES}},
            "skipped": {"type": "object", "additionalProperties": TEXT},
            "common_sweeps": TEXTS,
            "pairs": {"type": "array", "items": pair},
            "sweeps": {"type": "array", "items": fields(ROW, dict.fromkeys(METRICS, MAYBE_NUMBER))},
        },
        dict.fromkeys(("split", "poses_are", "pixels", "about_simulation", "held_out"), TEXT),
    )
    info = fields({"schema": {"const": f"dualtrack info/{JSON_VERSION}"}, **SWEEP, **OVERVIEW})
    return {
        "report.schema.json": headed("report", results.SCHEMA_VERSION, "report.json of a run", report),
        "evaluation.schema.json": headed("evaluation", table_files.SCHEMA_VERSION, "evaluation.json", evaluation),
        "info.schema.json": headed("info", JSON_VERSION, "What dualtrack info --json prints", info),
    }


if __name__ == "__main__":
    for name, values in schemas().items():
        (FOLDER / name).write_text(json_text(values), encoding="utf-8")

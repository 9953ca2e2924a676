"""Order, colours and families: what all parts of the report agree on."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from DualTrackCore.research.comparison import Comparison
from DualTrackCore.research.comparison.table import Summary
from DualTrackCore.research.simulation import FAMILIES

#: Colours that differ for all kinds of colour vision (Okabe and Ito 2008), and the dashes of further methods.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#20242c")
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))
#: Most methods whose cases are shown.
_SHOWN = 3


def ranked(comparison: Comparison) -> list[Summary]:
    """The methods by mean GPE, the least first; those without any figure come last."""
    return sorted(comparison.summaries, key=lambda s: (math.isnan(s.figures["gpe_mm"].mean), s.figures["gpe_mm"].mean))


def styles(methods: Sequence[str]) -> dict[str, tuple[str, object]]:
    """Colour and dashes of each method, in every picture the same."""
    return {
        name: (_COLOURS[i % len(_COLOURS)], _DASHES[i // len(_COLOURS) % len(_DASHES)])
        for i, name in enumerate(methods)
    }


def needs_truth(summary: Summary) -> bool:
    """Whether the method is told what others have to find out."""
    return "tru" in summary.uses


def leaders(comparison: Comparison) -> list[Summary]:
    """The best methods that look at images and nothing else; where there are none, the best of all."""
    good = [s for s in ranked(comparison) if s.sweeps]
    looking = [s for s in good if s.uses == "images"]
    return (looking or good)[:_SHOWN]


def family_of(sweep: str) -> str | None:
    """The family of paths that the name of a sweep carries, as in TUS-REC: "050/RH_Par_L_DtP" is of Par_L_DtP."""
    words = re.sub(r"[^a-z0-9]+", "_", sweep.lower())
    found = [family for family in FAMILIES if re.search(rf"(^|_){family.lower()}(_|$)", words)]
    return max(found, key=len) if found else None


def families(sweeps: Sequence[str]) -> dict[str, list[str]]:
    """Sweeps by family, in the order of the families; empty where the names carry fewer than two."""
    grouped: dict[str, list[str]] = {}
    for name in sweeps:
        if (family := family_of(name)) is not None:
            grouped.setdefault(family, []).append(name)
    return {family: grouped[family] for family in FAMILIES if family in grouped} if len(grouped) > 1 else {}

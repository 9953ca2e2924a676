"""Put what `dualtrack train mini-long` left into the package, with the recipe's card and what was measured of the weights.

    python Testing/Data/mini/ship_mini.py RUNS "EXPECTED ERROR"

EXPECTED ERROR is a sentence for the card: the metric, its value and the data. It is measured after training, by
`Testing/Benchmarks/study_recorded.py`.
"""

import sys
from dataclasses import replace
from pathlib import Path

from DualTrackCore.files import file_sha256, replacing
from DualTrackCore.network import load_model
from DualTrackCore.network.catalogue import shipped_folder
from DualTrackCore.network.model import save_model
from DualTrackCore.research.training import load_recipe
from DualTrackCore.research.training.initial import recipe_card

#: What the training found out itself; the rest of the card is the recipe's.
MEASURED = ("step_error_correlation", "step_error_freedom", "step_error_powers", "step_error_growth", "direction_sure_logit", "input_limits", "trained_ranges")

runs, expected_error = Path(sys.argv[1]), sys.argv[2]
model = load_model(str(runs / "mini-long" / "model.safetensors"))
card = recipe_card(load_recipe("mini/heads"))
card = replace(card, expected_error=expected_error, **{name: getattr(model.card, name) for name in MEASURED})
target = save_model(model.network, card, shipped_folder() / "mini.safetensors")
with replacing(target.with_name(target.name + ".sha256")) as temporary:
    temporary.write_text(f"{file_sha256(target)}  {target.name}\n", encoding="utf-8")
print(target, f"{target.stat().st_size / 1e6:.1f} MB")

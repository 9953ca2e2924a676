"""All tests run as on a computer without an NVIDIA card; `Testing/Device/measure.py` is for those that have one.

Tests look into the ways of the CPU and compare its numbers bit for bit. What "auto" chooses is theirs to play.
"""

import os

# Must precede torch; processes that tests start have it, too.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

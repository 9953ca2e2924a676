"""Run the module's self-tests in the real application, and leave with 0 only if all of them passed.

Slicer --testing --no-splash --additional-module-paths DualTrackSlicer --python-script Testing/Panel/run_in_slicer.py
"""

import sys
import unittest

import slicer

from DualTrackSlicer import DualTrackSlicerTest

slicer.util.selectModule("DualTrackSlicer")
suite = unittest.defaultTestLoader.loadTestsFromTestCase(DualTrackSlicerTest)
result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite)
slicer.util.exit(0 if result.testsRun and result.wasSuccessful() else 1)

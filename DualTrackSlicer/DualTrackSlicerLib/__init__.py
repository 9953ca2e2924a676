"""What stands behind the DualTrack module: scene conversion, logic, panel, dependency set-up."""

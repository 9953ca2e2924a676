"""Data sets, simulation, training, comparison of methods. The core, from sweep to volume, never imports this."""

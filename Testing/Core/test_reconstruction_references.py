"""Against volumes that another program (PLUS) made of the same tracked sweeps."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from plus_config import reconstruction_settings_from_plus_config
from shared_files import shared_path

from DualTrackCore.io import load_sweep
from DualTrackCore.reconstruction import Fan, plan_grid, reconstruct_volume


def reproduce(sequence, config, size_of_old_rule=None):
    """Our volume and its grid, with the settings of a PLUS configuration."""
    config = shared_path(f"data/config/PlusDeviceSet_{config}.xml")
    settings = reconstruction_settings_from_plus_config(config)
    sweep = load_sweep(shared_path(f"data/seq/{sequence}.igs.mha"), calibration=config)
    # The references take the extent from the clip rectangle alone, whatever the fan.
    grid = plan_grid(sweep, sweep.tracked, spacing_mm=settings.spacing_mm, frame="reference", clip=settings.clip)
    if size_of_old_rule is not None:
        grid = replace(grid, size=size_of_old_rule)
    return reconstruct_volume(
        sweep,
        sweep.tracked,
        grid,
        interpolation=settings.interpolation,
        compounding=settings.compounding,
        clip=settings.clip,
        fan=settings.fan,
        hole_filling=settings.hole_filling,
    )


def compare(made, reference):
    """(part identical, mean absolute difference, Dice of what is not black); the grids must be the same."""
    image = sitk.ReadImage(str(shared_path(f"data/ref/{reference}.mha")))
    assert made.grid.size == image.GetSize()
    # The reference states its origin with six digits.
    np.testing.assert_allclose(made.grid.origin_mm, image.GetOrigin(), atol=1e-3)
    ours, theirs = made.volume.astype(int), sitk.GetArrayFromImage(image).astype(int)
    common = np.count_nonzero((ours > 0) & (theirs > 0))
    dice = 2 * common / (np.count_nonzero(ours) + np.count_nonzero(theirs))
    return (ours == theirs).mean(), np.abs(ours - theirs).mean(), dice


def test_settings_are_read_from_a_plus_configuration():
    late = reconstruction_settings_from_plus_config(
        shared_path("data/config/PlusDeviceSet_VolumeReconstructionOnly_SonixRP_TRUS_D70mm_NN_LATE.xml")
    )
    assert (late.interpolation, late.compounding, late.hole_filling) == ("nearest", "latest", ())
    assert late.clip == (192, 16, 420, 580)
    assert late.fan == Fan((380, 20), (-45, 45), (120, 360))
    spine = reconstruction_settings_from_plus_config(
        shared_path("data/config/PlusDeviceSet_SpinePhantomFreehandReconstructionOnly.xml")
    )
    assert spine.spacing_mm == (0.5, 0.5, 0.5)
    assert (spine.interpolation, spine.compounding, spine.fan) == ("linear", "mean", None)
    assert [(f.method, f.stick_length, f.sticks) for f in spine.hole_filling] == [("stick", 9, 1)]


@pytest.mark.parametrize(
    ("config", "reference"),
    [
        ("VolumeReconstructionOnly_SonixRP_TRUS_D70mm_NN_LATE", "vtkVolumeReconstructorTestNNLATEvolumeRef"),
        ("VolumeReconstructionOnly_SpinePhantom_LN_MAXI", "vtkVolumeReconstructorTestLNMAXIvolumeRef"),
    ],
)
def test_latest_and_maximum_are_98_5_percent_identical(config, reference):
    identical, difference, dice = compare(reproduce("SpinePhantomFreehand", config), reference)
    assert identical >= 0.985
    assert difference < 0.2
    assert dice > 0.98


def test_the_spine_mean_with_sticks_has_the_shape_of_the_reference():
    made = reproduce("SpinePhantomFreehand", "SpinePhantomFreehandReconstructionOnly", (147, 106, 104))
    identical, difference, dice = compare(made, "SpinePhantomFreehandReconstructed")
    assert identical > 0.75
    assert difference < 1
    assert dice > 0.98


def test_the_wire_mean_has_the_shape_of_the_reference():
    made = reproduce("NwirePhantomFreehand", "NwirePhantomFreehand_vtkVolumeReconstructorTest2", (101, 104, 74))
    identical, difference, dice = compare(made, "NwirePhantomFreehandReconstructed")
    assert identical > 0.97
    assert difference < 1
    assert dice > 0.75

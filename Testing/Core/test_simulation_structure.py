"""What scatters beside fully developed speckle: few scatterers in a cell, fibres along the limb, a further bone."""

from dataclasses import replace

import numpy as np
import pytest

from DualTrackCore.research.simulation import Phantom, Probe, Renderer, acquired_sweep
from DualTrackCore.research.simulation.acquisition import Acquisition, Motion, Tissue, View
from DualTrackCore.research.simulation.render import levels_of_codes

SPACING, SIZE = (0.2, 0.2), (150, 200)
#: Of one width at all depths and of one cell, so that numbers per cell hold everywhere.
EVEN = Probe(noise_db=-300.0, lateral_widening=0.0, lens_height_mm=1.0, elevational_factor=0.3)
PHANTOM = Phantom(3, 3, homogeneous=True)


def renderer(tissue, phantom=PHANTOM, probe=EVEN, **options) -> Renderer:
    return Renderer(phantom, probe, SIZE, SPACING, tissue=tissue, **options)


def at(x=0.0, y=0.0, z=0.0) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, 3] = x, y, z
    return pose


def intensity(view: Renderer, pose: np.ndarray, rows: slice = slice(None)) -> np.ndarray:
    return np.abs(view._speckle(pose)[rows]) ** 2


def signal_to_noise(intensity: np.ndarray) -> float:
    amplitude = np.sqrt(intensity)
    return float(amplitude.mean() / amplitude.std())


def correlation_after(view: Renderer, distance_mm: float, rows: slice, x: float = 0.0) -> float:
    """Of intensities before and after a step along z (or, with x, along the picture)."""
    places = 3.7 * np.arange(16)
    first, moved = (
        np.array([intensity(view, at(x=x * d, z=z + (1 - x) * d), rows) for z in places]) for d in (0, distance_mm)
    )
    return float(np.corrcoef(first.ravel(), moved.ravel())[0, 1])


@pytest.mark.parametrize("per_cell", [0.5, 2.0, 8.0])
def test_few_scatterers_give_the_intensity_moments_of_a_k_distribution(per_cell):
    view = renderer(Tissue(coherent_part=1.0, scatterers_per_cell=per_cell))
    inside = np.concatenate([intensity(view, at(z=4.3 * k)) for k in range(40)])
    assert inside.mean() == pytest.approx(1.0, rel=0.1)
    assert (inside**2).mean() / inside.mean() ** 2 == pytest.approx(2 * (1 + 1 / per_cell), rel=0.12)
    assert signal_to_noise(inside) < 1.85


def test_regions_of_few_scatterers_cover_their_part_and_leave_rayleigh_speckle_outside():
    view = renderer(Tissue(coherent_part=0.4, scatterers_per_cell=0.5))
    inside, outside, part = [], [], []
    for k in range(40):
        pose = at(z=8.3 * k)
        share = view._shares(pose)[0]
        values = intensity(view, pose)
        inside.append(values[share == 1])
        outside.append(values[share == 0])
        part.append((share > 0.5).mean())
    assert np.mean(part) == pytest.approx(0.4, abs=0.08)
    assert signal_to_noise(np.concatenate(inside)) < 1.5
    assert signal_to_noise(np.concatenate(outside)) == pytest.approx(1.913, rel=0.03)


def test_regions_stand_still_in_the_tissue():
    view = renderer(Tissue(coherent_part=0.4))
    here, there = (view._shares(at(x=x))[0] for x in (0.0, 10 * SPACING[0]))
    assert np.abs(here[:, 10:] - there[:, :-10]).mean() < 0.01
    assert np.abs(here - there).mean() > 0.1


@pytest.mark.parametrize("distance", [0.5, 1.0, 1.5])
def test_few_scatterers_decorrelate_as_the_beam_says(distance):
    view = renderer(Tissue(coherent_part=1.0, scatterers_per_cell=2.0))
    sigma = EVEN.focal_elevational_sigma_mm
    measured = correlation_after(view, distance * sigma, slice(60, 130))
    assert measured == pytest.approx(np.exp(-(distance**2) / 2), abs=0.04)


@pytest.mark.parametrize("factor", [1.0, 2.0])
@pytest.mark.parametrize("depth_mm", [18.0, 28.0])
def test_a_beam_of_twice_the_width_decorrelates_over_twice_the_distance(factor, depth_mm):
    probe = Probe(noise_db=-300.0, elevational_factor=factor)
    view = renderer(Tissue(), probe=probe)
    row = round(depth_mm / SPACING[1])
    sigma = np.hypot(2.09 / 7.5 * factor, 0.204 * 5 / 18 * (depth_mm - 18))
    assert correlation_after(view, sigma, slice(row - 2, row + 3)) == pytest.approx(np.exp(-0.5), abs=0.04)


@pytest.mark.parametrize("heading", [180.0, -90.0])
def test_fibres_are_long_along_the_limb_alone(heading):
    """Their echo falls to half over half the length, when the speckle has decorrelated; across they are as the beam."""
    length, beam, other = 6.0, EVEN.focal_elevational_sigma_mm, EVEN.focal_lateral_sigma_mm
    beam, other = (beam, other) if heading == 180 else (other, beam)
    view = renderer(Tissue(fibre_mm=length), replace(PHANTOM, heading_deg=heading))
    view._structures._regions = [np.full_like(region, k) for k, region in enumerate(view._structures._regions)]
    sigma = np.hypot(length / 2.3548, beam)
    lengthwise = 1.0 if heading == -90 else 0.0
    rows = slice(40, 100)
    along = [correlation_after(view, d * sigma, rows, lengthwise) for d in (0.3, 1.0)]
    assert along[1] / along[0] == pytest.approx(np.exp(-(1.0 - 0.09) / 2), abs=0.08)
    assert along[0] > 0.7
    across = [correlation_after(view, d * other, rows, 1 - lengthwise) for d in (1.0, 4.0)]
    assert across == pytest.approx([np.exp(-0.5), 0.0], abs=0.1)


def test_a_further_bone_lies_in_the_picture_and_casts_a_shadow_whichever_way_the_probe_lies():
    for family in ("Per_L_DtP", "Par_L_DtP"):
        for seed in range(6):
            acquisition = Acquisition(
                Probe(noise_db=-120.0, elements=192, pitch_mm=0.21),
                view=View(depth_mm=40, width_mm=40),
                motion=Motion(family),
                tissue=Tissue(bone=True),
            )
            sweep = acquired_sweep(seed, acquisition, 2, 0.4, speckle_seed=3, levels=True)
            view = sweep.frames._renderer
            grid = view._anatomy_grid
            _, attenuation = view._phantom.tissue(*grid.places(np.eye(4), -view._face_mm, None))
            bone = grid.fine(attenuation) > 10
            assert bone.any()
            levels = np.maximum(levels_of_codes(sweep.frames[0]), -65)
            shadow = np.cumsum(bone, axis=0) > 12
            assert levels[shadow].mean() < -40
            assert levels[~bone & ~shadow].mean() > -25

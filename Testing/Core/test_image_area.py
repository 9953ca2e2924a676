"""Which pixels are used: clip rectangle, fan, and finding both from the frames."""

import numpy as np
import pytest
from shared_files import shared_path

from DualTrackCore.errors import InputError
from DualTrackCore.reconstruction import Fan, detect_fan, resolved_area, select_pixels
from DualTrackCore.reconstruction.detect import _radii
from DualTrackCore.sweep import Sweep

FAN = Fan((160, -30), (-35, 35), (50, 240))


def speckle(mask, frames=12, seed=0):
    random = np.random.default_rng(seed)
    return (random.rayleigh(25, (frames, *mask.shape)).clip(0, 255) * mask).astype(np.uint8)


def test_the_upper_bound_of_a_clip_rectangle_is_included_and_cut_at_the_frame():
    assert select_pixels((20, 30), (5, 6, 10, 4)).pixels == 11 * 5
    assert select_pixels((20, 30), (5, 6, 100, 100)).pixels == 25 * 14
    assert select_pixels((20, 30)).pixels == 600


def test_a_fan_holds_the_pixels_between_its_angles_and_radii():
    mask = Fan((10, 0), (-45, 45), (3, 8)).mask((20, 21))
    v, u = np.nonzero(mask)
    assert (np.abs(u - 10) <= v).all()
    distance = np.hypot(u - 10, v)
    assert distance.min() == 3
    assert distance.max() == 8
    assert mask[3, 10]
    assert not mask[2, 10]
    assert not mask[9, 10]


def test_a_fan_of_flat_pixels_is_round_in_millimetres():
    mask = Fan((20, 0), (-80, 80), (0, 10), aspect=0.5).mask((40, 41))
    assert np.flatnonzero(mask[:, 20]).max() == 20
    assert np.abs(np.flatnonzero(mask[1]) - 20).max() < 10


def test_a_fan_that_misses_the_clip_rectangle_is_refused():
    with pytest.raises(InputError, match="lies in both the clip rectangle and"):
        select_pixels((240, 320), (0, 0, 5, 5), FAN)


@pytest.mark.parametrize(
    "values",
    [
        {"angles_deg": (10, -10)},
        {"angles_deg": (-90, 45)},
        {"radii_pixel": (20, 10)},
        {"radii_pixel": (-1, 10)},
        {"origin_pixel": (np.nan, 0)},
        {"origin_pixel": "middle"},
        {"aspect": 0},
    ],
)
def test_a_fan_that_is_none_is_refused(values):
    with pytest.raises(InputError, match="fan"):
        Fan(**{"origin_pixel": (0, 0), "angles_deg": (-10, 10), "radii_pixel": (0, 10), **values})


@pytest.mark.parametrize("aspect", [1.0, 0.8])
def test_a_curvilinear_fan_is_found_beside_a_static_caption(aspect):
    fan = Fan((160, -30), (-35, 35), (50, 240), aspect)
    frames = speckle(fan.mask((240, 320)))
    frames[:, 5:20, 5:70] = 200
    area = detect_fan(Sweep(frames, (0.25, 0.25 * aspect)))
    assert area.fan is not None
    np.testing.assert_allclose(area.fan.origin_pixel, fan.origin_pixel, atol=4)
    np.testing.assert_allclose(area.fan.angles_deg, fan.angles_deg, atol=1)
    found, true = area.fan.mask((240, 320)), fan.mask((240, 320))
    assert np.count_nonzero(found & true) >= 0.99 * np.count_nonzero(true)
    assert np.count_nonzero(found & ~true) <= 0.05 * np.count_nonzero(true)


def test_an_area_says_how_well_it_fits_what_moves():
    fan = Fan((160, -30), (-35, 35), (50, 240)).mask((240, 320))
    box = np.zeros((240, 320), bool)
    box[20:221, 60:251] = True
    ragged = box & (np.random.default_rng(0).random((24, 32)).repeat(10, 0).repeat(10, 1) > 0.4)
    sure = [detect_fan(Sweep(speckle(mask))).confidence for mask in (fan, box, ragged)]
    assert min(sure[:2]) > 0.93
    assert sure[2] < 0.9
    assert detect_fan(Sweep(speckle(box, frames=1))).confidence == 0.5


def test_a_linear_probes_rectangle_is_found_without_a_fan():
    mask = np.zeros((240, 320), bool)
    mask[20:221, 60:251] = True
    area = detect_fan(Sweep(speckle(mask)))
    assert area.fan is None
    np.testing.assert_allclose(area.clip, (60, 20, 190, 200), atol=2)


def test_black_and_unchanging_frames_have_no_image_area():
    with pytest.raises(InputError, match="No image area was found"):
        detect_fan(Sweep(np.zeros((3, 50, 60), np.uint8)))
    with pytest.raises(InputError, match="No image area was found"):
        detect_fan(Sweep(np.full((3, 50, 60), 90, np.uint8)))


def test_the_image_area_of_the_spine_phantom_is_found():
    from DualTrackCore.io import load_sweep

    x, y, width, height = detect_fan(load_sweep(shared_path("data/seq/SpinePhantomFreehand.igs.mha"))).clip
    np.testing.assert_allclose((x, y, x + width, y + height), (187, 12, 631, 601), atol=3)


def test_the_cut_off_fan_of_a_single_curvilinear_frame_is_found():
    from DualTrackCore.io import load_sweep

    sweep = load_sweep(shared_path("data/seq/BkCurvilinearScanConvertedData.igs.mha"))
    area = detect_fan(sweep)
    assert area.fan is not None
    drawn = sweep.window(0, 1)[0] > 20
    assert np.count_nonzero(drawn & area.fan.mask(drawn.shape)) > 0.99 * np.count_nonzero(drawn)


def test_a_clip_beside_a_fan_that_is_found_keeps_what_lies_in_both():
    mask = FAN.mask((240, 320))
    sweep = Sweep(speckle(mask), 0.2)
    found = detect_fan(sweep)
    left, top, _, height = found.clip
    clip, fan = resolved_area(sweep, (left + 30, top + 20, 40, 1000), "auto")
    assert clip == (left + 30, top + 20, 40, height - 20)
    assert fan == found.fan
    assert resolved_area(sweep, None, "auto") == (found.clip, found.fan)


def test_arcs_are_found_around_an_apex_far_beside_the_picture():
    y, x = np.mgrid[:480, :640]
    distance = np.hypot(x + 500, y)
    radii = _radii((distance >= 600) & (distance <= 1100), (-500, 0), 1.0, (np.tan(1.2), np.tan(1.5)))
    assert radii == pytest.approx((600, 1100), abs=1.5)

"""Folders of images, multi-page TIFF, single images, and the conversion to 8-bit grey."""

import numpy as np
import pytest
import SimpleITK as sitk

from DualTrackCore.errors import InputError
from DualTrackCore.grey import to_grey_uint8
from DualTrackCore.io import image_stack
from DualTrackCore.io.image_stack import natural_key


def load(path, calibration=None, spacing_mm=None):
    return image_stack.read(path, calibration=calibration, spacing_mm=spacing_mm)


def save(array, path, colour=False):
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=colour), str(path))


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "clip"
    path.mkdir()
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_a_folder_is_read_in_the_order_of_its_numbers(folder, suffix):
    frames = noise(12, 9, 7)
    for i in range(12):
        save(frames[i], folder / f"frame{i + 1}.{suffix}")
    (folder / "notes.txt").write_text("not an image")
    (folder / f".hidden.{suffix}").write_bytes(b"not an image either")
    assert image_stack.recognises(folder, b"")
    sweep = load(folder)
    np.testing.assert_array_equal(sweep.frames, frames)
    assert sweep.spacing_mm is None
    assert sweep.timestamps_s is None
    assert sweep.provenance["spacing_source"] == "unknown"
    assert sweep.provenance["source"] == "clip"


def test_numbers_sort_by_value_and_words_by_letter():
    names = ["b2.png", "b10.png", "a11.png", "7.png", "b02.png", "a.png", "10.png"]
    assert sorted(names, key=natural_key) == ["7.png", "10.png", "a11.png", "a.png", "b02.png", "b2.png", "b10.png"]


def test_a_multi_page_tiff_is_a_clip(tmp_path):
    frames = noise(5, 9, 7)
    save(frames, tmp_path / "clip.tif")
    content = (tmp_path / "clip.tif").read_bytes()
    assert image_stack.recognises(tmp_path / "clip.tif", content[:4096])
    np.testing.assert_array_equal(load(tmp_path / "clip.tif").frames, frames)


def test_a_colour_multi_page_tiff_becomes_grey(tmp_path):
    frames = noise(3, 9, 7, 3)
    save(frames, tmp_path / "clip.tif", colour=True)
    sweep = load(tmp_path / "clip.tif")
    np.testing.assert_array_equal(sweep.frames, np.rint(frames @ [0.299, 0.587, 0.114]))
    assert "colour to grey" in sweep.provenance["conversions"][0]


def test_a_single_image_is_a_sweep_of_one_frame(tmp_path):
    save(noise(9, 7), tmp_path / "one.png")
    assert load(tmp_path / "one.png").frames.shape == (1, 9, 7)


def test_a_jpeg_is_read_to_within_its_losses(tmp_path):
    image = np.broadcast_to(np.arange(64, dtype=np.uint8), (48, 64)) * np.uint8(3)
    save(image, tmp_path / "one.jpg")
    assert np.abs(load(tmp_path / "one.jpg").frames[0].astype(int) - image).max() < 12


def test_grey_and_colour_files_of_one_clip_may_mix(folder):
    grey = noise(9, 7)
    save(grey, folder / "1.png")
    save(np.repeat(grey[..., None], 3, axis=-1), folder / "2.png", colour=True)
    sweep = load(folder)
    np.testing.assert_array_equal(sweep.frames[0], sweep.frames[1])


def test_sixteen_bit_images_are_scaled_over_the_whole_clip(folder):
    for i, value in enumerate((0, 128 * 257, 65535)):
        save(np.full((4, 5), value, np.uint16), folder / f"{i}.png")
    sweep = load(folder)
    assert sweep.frames[:, 0, 0].tolist() == [0, 128, 255]
    note = "Scaled pixel values 0 to 65535, a range of uint16, linearly to 0 to 255 (8 bits)."
    assert sweep.provenance["conversions"] == [note]


def test_spacing_comes_from_the_user_or_a_calibration(tmp_path):
    save(noise(9, 7), tmp_path / "one.png")
    given = load(tmp_path / "one.png", spacing_mm=(0.2, 0.3))
    assert (given.spacing_mm, given.provenance["spacing_source"]) == ((0.2, 0.3), "user")
    calibrated = load(tmp_path / "one.png", calibration=np.diag([0.1, 0.4, 1, 1]))
    assert (calibrated.spacing_mm, calibrated.provenance["spacing_source"]) == ((0.1, 0.4), "calibration")
    with pytest.raises(InputError, match="contradicts the calibration"):
        load(tmp_path / "one.png", calibration=np.diag([0.1, 0.4, 1, 1]), spacing_mm=(0.1, 0.3))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (np.zeros((9, 8), np.uint8), "8 x 9 pixels and 1.png 7 x 9"),
        (np.zeros((9, 7), np.uint16), "uint16 pixels of another kind"),
    ],
)
def test_the_odd_file_of_a_folder_is_named(folder, other, message):
    save(noise(9, 7), folder / "1.png")
    save(other, folder / "2.png")
    with pytest.raises(InputError, match=message) as caught:
        load(folder)
    assert "2.png" in str(caught.value)


def masks(frames, values=2):
    return (np.digitize(frames, np.linspace(0, 255, values + 1)[1:-1]) * 100 % 256).astype(np.uint8)


@pytest.mark.parametrize("name", ["frame_{:03d}_mask", "mask_{:03d}", "frame_{:03d}_seg_1"])
@pytest.mark.parametrize("values", [2, 5])
def test_masks_beside_frames_are_left_out_and_named(folder, name, values):
    frames = noise(6, 9, 7)
    for number, (frame, mask) in enumerate(zip(frames, masks(frames, values), strict=True)):
        save(frame, folder / f"frame_{number:03d}.png")
        if number != 2:  # not every frame needs one
            save(mask, folder / f"{name.format(number)}.png")
    sweep = load(folder)
    np.testing.assert_array_equal(sweep.frames, frames)
    assert (
        f"Left out 5 masks: images of few values beside the frames, such as {name.format(0)}.png."
        in (sweep.provenance["conversions"])
    )


@pytest.mark.parametrize("other", ["right_{}.png", "left_{}.bmp"])
def test_two_series_that_may_both_be_frames_are_refused_by_their_names(folder, other):
    for number, frame in enumerate(noise(4, 9, 7)):
        save(frame, folder / f"left_{number}.png")
        save(frame[::-1], folder / other.format(number))
    with pytest.raises(InputError, match=f"4 like left_0.png and 4 like {other.format(0)}|several kinds"):
        load(folder)


def test_names_that_only_look_like_two_series_are_one_clip(folder):
    frames = noise(4, 9, 7)
    for frame, name in zip(frames, ["clip", "clip (1)", "clip (2)", "still 3"], strict=True):
        save(frame, folder / f"{name}.png")
    np.testing.assert_array_equal(np.sort(load(folder).frames, axis=0), np.sort(frames, axis=0))


def test_a_folder_of_folders_names_them(folder):
    (folder / "frames").mkdir()
    with pytest.raises(InputError, match="no files but the folders frames"):
        load(folder)


def test_a_page_stack_inside_a_folder_is_refused(folder):
    save(noise(3, 9, 7), folder / "1.tif")
    with pytest.raises(InputError, match=r"1\.tif has 3 pages"):
        load(folder)


@pytest.mark.parametrize(
    ("names", "message"),
    [([], "holds no files"), (["a.txt"], "holds no images"), (["a.dcm", "b.dcm"], "holds no images")],
)
def test_a_folder_without_images_says_what_is_missing(folder, names, message):
    for name in names:
        (folder / name).write_bytes(b"x")
    with pytest.raises(InputError, match=message) as caught:
        load(folder)
    assert "clip" in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
@pytest.mark.parametrize("kept", [20, 400])
def test_a_truncated_image_is_refused_with_its_name(tmp_path, suffix, kept):
    save(noise(64, 64), tmp_path / f"cut.{suffix}")
    content = (tmp_path / f"cut.{suffix}").read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(content[:kept])
    with pytest.raises(InputError, match=rf"cut\.{suffix}"):
        load(tmp_path / f"cut.{suffix}")


def test_an_image_that_is_none_is_refused_with_its_name(folder):
    (folder / "1.png").write_bytes(b"<html>")
    with pytest.raises(InputError, match=r"1\.png is not a PNG"):
        load(folder)


def test_an_image_of_absurd_size_is_refused_by_its_header(tmp_path):
    save(noise(8, 8), tmp_path / "bomb.bmp")
    content = bytearray((tmp_path / "bomb.bmp").read_bytes())
    content[18:26] = (1_000_000).to_bytes(4, "little") * 2  # width and height of the bitmap header
    (tmp_path / "bomb.bmp").write_bytes(content)
    with pytest.raises(InputError, match="1000000 x 1000000"):
        load(tmp_path / "bomb.bmp")


def test_grey_frames_of_eight_bits_pass_untouched():
    frames = noise(2, 3, 4)
    grey, notes = to_grey_uint8(frames, colour_axis=None)
    assert grey is frames
    assert notes == []


@pytest.mark.parametrize("axis", [0, 1, 3, -1])
def test_colour_weights_are_rounded_wherever_the_colours_lie(axis):
    frames = noise(3, 5, 6, 4)
    grey, notes = to_grey_uint8(np.moveaxis(frames, -1, axis), colour_axis=axis)
    exact = frames[..., :3].astype(int) @ [299, 587, 114]
    np.testing.assert_array_equal(grey, (exact + 500) // 1000)
    assert notes == ["Converted colour to grey (0.299 R + 0.587 G + 0.114 B).", "Dropped the alpha channel."]


def test_values_of_one_bit_and_of_one_value_are_scaled():
    assert to_grey_uint8(np.array([[[False, True]]]), colour_axis=None)[0].tolist() == [[[0, 255]]]
    assert to_grey_uint8(np.full((1, 2, 2), 7.5), colour_axis=None)[0].max() == 0


@pytest.mark.parametrize(
    ("frames", "axis", "message"),
    [
        (np.array([[[np.nan, 1.0]]]), None, "not finite"),
        (np.array([[[np.inf, 1.0]]]), None, "not finite"),
        (np.zeros((2, 3, 4, 5), np.uint8), 3, "5 channels"),
        (np.zeros((2, 3), np.uint8), None, "shape"),
        (np.zeros((0, 3, 4), np.uint8), None, "no pixels"),
        (np.zeros((1, 3, 4), np.complex64), None, "complex64"),
    ],
)
def test_what_cannot_become_grey_is_refused(frames, axis, message):
    with pytest.raises(InputError, match=message):
        to_grey_uint8(frames, colour_axis=axis)

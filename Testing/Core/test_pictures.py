import io
import itertools
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from DualTrackCore import pictures
from DualTrackCore.errors import MissingDependencyError, OutputError
from DualTrackCore.evaluation import evaluate
from DualTrackCore.path_error import path_error, with_trust
from DualTrackCore.pictures import drawing, previews
from DualTrackCore.pictures.path_in_space import _outlines, _plotted
from DualTrackCore.pictures.previews import seen_centre
from DualTrackCore.reconstruction import reconstruct_volume, seen_text
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

matplotlib_image = pytest.importorskip("matplotlib.image", reason="Pictures need matplotlib, which is not installed.")


def read_png(path):
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    return (matplotlib_image.imread(path)[..., :3] * 255).round().astype(np.uint8)


def count_colour(picture, rgb, tolerance=3):
    return int((np.abs(picture.astype(int) - rgb).max(axis=-1) <= tolerance).sum())


def made(volume, coverage, grid):
    filled = np.zeros(volume.shape, bool)
    return SimpleNamespace(volume=volume, coverage=coverage, filled=filled, grid=grid, provenance={})


@pytest.fixture
def reconstruction():
    """A bright ball in a seen box of black inside an unseen margin; 60 x 40 x 100 voxels of unequal size."""
    k, j, i = np.mgrid[:100, :40, :60]
    volume = np.where((i - 30) ** 2 + (j - 20) ** 2 + (k - 50) ** 2 < 100, 200, 0).astype(np.uint8)
    coverage = np.zeros(volume.shape, np.float32)
    coverage[20:80, 5:35, 10:50] = 1.0
    grid = SimpleNamespace(origin_mm=np.array([-9.0, -10, 0]), spacing_mm=(0.3, 0.5, 0.4), size=(60, 40, 100))
    grid.axes = np.eye(3)
    return made(volume, coverage, grid)


@pytest.fixture
def trajectory():
    return Trajectory.from_parameters(np.tile([0.05, 0.0, 0.3, 0.1, 0.2, 0.0], (59, 1)))


@pytest.fixture
def sweep():
    return Sweep(np.zeros((60, 48, 64), np.uint8), (0.5, 0.5), timestamps_s=np.arange(60) / 20)


def test_slices_are_a_wide_picture_with_ball_black_and_unseen_in_their_own_colours(reconstruction, tmp_path):
    picture = read_png(pictures.write_slices(reconstruction, tmp_path / "slices.png"))
    assert 1280 <= picture.shape[1] <= 1600
    assert 600 < picture.shape[0] < 2000
    for rgb in ((200, 200, 200), (0, 0, 0), drawing.UNSEEN_RGB):
        assert count_colour(picture, rgb) > 10_000


def test_a_volume_seen_everywhere_shows_no_unseen_tint(reconstruction, tmp_path):
    reconstruction.coverage[:] = 1
    picture = read_png(pictures.write_slices(reconstruction, tmp_path / "slices.png"))
    assert count_colour(picture, drawing.UNSEEN_RGB) == 0


def test_filled_voxels_show_their_value_and_are_counted_as_the_console_does(reconstruction, monkeypatch):
    reconstruction.filled[:] = reconstruction.coverage == 0
    figure = drawn(monkeypatch, pictures.write_slices, reconstruction)
    (seen,) = [text.get_text() for text in figure.texts if text.get_gid() == "seen"]
    assert seen == seen_text(0.3, 0.7) == "30 % of it seen, 70 % filled in, 0 % neither"
    assert all((axes.images[0].get_array()[..., 2] != drawing.UNSEEN_RGB[2]).all() for axes in figure.axes)


def test_a_volume_that_no_frame_crossed_is_all_tint_and_no_error(reconstruction, tmp_path):
    reconstruction.coverage[:] = 0
    picture = read_png(pictures.write_slices(reconstruction, tmp_path / "slices.png"))
    assert count_colour(picture, (200, 200, 200)) < 200


@pytest.mark.parametrize(("axis", "shape"), list(itertools.product((0, 1, 2), [(1, 40, 60)])))
def test_a_volume_one_voxel_thin_can_be_drawn(axis, shape, tmp_path):
    shape = tuple(np.roll(shape, axis))
    grid = SimpleNamespace(origin_mm=np.zeros(3), spacing_mm=(0.3, 0.3, 0.3), size=shape[::-1], axes=np.eye(3))
    thin = made(np.full(shape, 90, np.uint8), np.ones(shape), grid)
    assert 1280 <= read_png(pictures.write_slices(thin, tmp_path / "slices.png")).shape[1] <= 1600


def drawn(monkeypatch, write, *arguments, **options):
    """The figure that a writer would have saved, laid out."""
    figures = []
    monkeypatch.setattr(drawing, "save", lambda figure, path: figures.append(figure))
    write(*arguments, "unused.png", **options)
    figures[0].savefig(io.BytesIO())
    return figures[0]


@pytest.mark.parametrize("spacing_z", [0.004, 0.4, 9.0])
def test_all_slices_have_one_scale_and_the_one_bar_has_its_stated_length(reconstruction, monkeypatch, spacing_z):
    reconstruction.grid.spacing_mm = (0.3, 0.5, spacing_z)
    figure = drawn(monkeypatch, pictures.write_slices, reconstruction)
    scales = [axes.transData.transform([(0, 0), (1, 0)]) for axes in figure.axes]
    pixels_a_mm = [right[0] - zero[0] for zero, right in scales]
    np.testing.assert_allclose(pixels_a_mm, pixels_a_mm[0], rtol=1e-6)
    ((axes, bar),) = [(axes, line) for axes in figure.axes for line in axes.lines if line.get_gid() == "scale bar"]
    stated = float(axes.texts[0].get_text().split()[0])
    assert np.ptp(axes.transData.transform(np.column_stack(bar.get_data()))[:, 0]) == pytest.approx(
        stated * pixels_a_mm[0], rel=1e-6
    )


@pytest.mark.parametrize("extent", [(18, 20, 40), (200, 150, 4), (40, 45, 900), (0.3, 30, 40), (300, 0.3, 0.3)])
def test_slices_of_any_shape_lie_in_the_picture_and_not_on_one_another(extent):
    _, places = previews._one_scale(np.array(extent, float))
    boxes = np.array([[left, bottom, left + width, bottom + height] for left, bottom, width, height in places])
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    for one, other in itertools.combinations(boxes, 2):
        assert (one[2:] <= other[:2]).any() or (other[2:] <= one[:2]).any()


def test_pixels_of_the_slices_are_as_long_across_as_down(reconstruction, monkeypatch):
    figure = drawn(monkeypatch, pictures.write_slices, reconstruction)
    for axes in figure.axes:
        zero, right, down = axes.transData.transform([(0, 0), (1, 0), (0, 1)])
        assert abs(right[0] - zero[0]) == pytest.approx(abs(down[1] - zero[1]), rel=1e-6)
        assert down[1] < zero[1]


@pytest.mark.parametrize("spacing_z", [0.1, 0.9])
def test_each_panel_shows_its_own_plane_the_right_way_up(spacing_z, monkeypatch):
    volume = np.random.default_rng(0).integers(0, 255, (40, 30, 50), dtype=np.uint8)
    grid = SimpleNamespace(origin_mm=np.zeros(3), spacing_mm=(0.3, 0.3, spacing_z), size=(50, 30, 40), axes=np.eye(3))
    full = made(volume, np.ones(volume.shape), grid)
    i, j, k = seen_centre(full.coverage > 0)
    figure = drawn(monkeypatch, pictures.write_slices, full)
    planes = (volume[k], volume[:, :, i].T, volume[:, j, :].T, volume.max(axis=0))
    for axes, plane in zip(figure.axes, planes, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array()[..., 0], plane)


def test_slices_name_anatomical_axes_only_on_a_grid_along_frame0(reconstruction, monkeypatch):
    figure = drawn(monkeypatch, pictures.write_slices, reconstruction)
    assert [axes.get_xlabel() for axes in figure.axes] == ["x lateral →", *["z elevational →"] * 2, "x lateral →"]
    assert "z elevational = 19.6 mm" in figure.axes[0].get_title(loc="left")
    reconstruction.grid.axes = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    figure = drawn(monkeypatch, pictures.write_slices, reconstruction)
    assert figure.axes[0].get_xlabel() == "grid x →"


@pytest.mark.parametrize(
    ("extent", "bar"), [(40, 10), (60, 20), (149, 20), (150, 50), (3.1, 1), (0.9, 0.2), (1000, 200)]
)
def test_the_scale_bar_is_a_round_length_of_at_most_a_third(extent, bar):
    assert drawing.scale_bar_mm(extent) == pytest.approx(bar)


def test_the_seen_centre_is_in_the_middle_of_what_was_seen():
    seen = np.zeros((10, 20, 30), bool)
    seen[2:5, 10:13, 20:29] = True
    assert seen_centre(seen) == (24, 11, 3)
    assert seen_centre(np.zeros((10, 20, 30), bool)) == (15, 10, 5)


def test_tinting_keeps_what_was_seen_and_marks_what_was_not():
    grey, known = np.array([[0, 255]], np.uint8), np.array([[True, False]])
    np.testing.assert_array_equal(drawing.tinted(grey, known), [[(0, 0, 0), drawing.UNSEEN_RGB]])


def test_a_trajectory_is_drawn_with_outlines_and_truth(trajectory, sweep, tmp_path):
    bare = read_png(pictures.write_trajectory(trajectory, sweep, tmp_path / "bare.png"))
    assert 1400 <= bare.shape[1] <= 1600
    assert (bare != 255).any(axis=-1).mean() > 0.1
    truth = Trajectory.from_parameters(trajectory.parameters * 1.3)
    with_truth = read_png(pictures.write_trajectory(trajectory, sweep, tmp_path / "truth.png", truth=truth))
    assert (bare != with_truth).any()


@pytest.mark.parametrize("stretch", [(1, 1, 1), (1, 1, 40), (30, 1, 0.1), (0.1, 60, 0.1)])
def test_a_path_of_any_shape_fills_its_picture(trajectory, sweep, monkeypatch, stretch):
    from mpl_toolkits.mplot3d.proj3d import proj_transform

    poses = trajectory.poses.copy()
    poses[:, :3, 3] *= stretch
    figure = drawn(monkeypatch, pictures.write_trajectory, Trajectory(poses), sweep)
    axes = figure.axes[0]
    ends = np.array(np.meshgrid(axes.get_xlim(), axes.get_ylim(), axes.get_zlim())).reshape(3, -1)
    across, up, _ = proj_transform(*ends, axes.get_proj())
    seen = axes.transData.transform(np.column_stack([across, up])) / figure.dpi
    assert seen.min() > 1.0
    assert (seen.max(axis=0) < [figure.get_figwidth() - 3, figure.get_figheight() - 1.2]).all()
    room = np.array([16 - 1.2 - 3.2, 10.5 - 1.6 - 1.4])
    assert (np.ptp(seen, axis=0) / room).max() == pytest.approx(1, abs=0.03)


def test_a_picture_says_at_its_foot_why_it_is_to_be_trusted_no_more(trajectory, sweep, monkeypatch):
    doubtful = with_trust(replace(trajectory, origin="estimated"), "do not measure: " + "So it is. " * 25)
    for figure in (
        drawn(monkeypatch, pictures.write_trajectory, doubtful, sweep),
        drawn(monkeypatch, pictures.write_motion, doubtful),
    ):
        (why,) = [text for text in figure.texts if text.get_gid() == "why"]
        assert why.get_text().replace("\n", " ").startswith("Trust: do not measure: So it is. So it is.")
        box = why.get_window_extent()
        assert 0 <= box.y0 < box.y1 <= 0.55 * figure.dpi
        assert box.x1 <= figure.bbox.x1


def test_outlines_have_the_size_and_place_of_their_frames(trajectory, sweep):
    outlines = list(_outlines(trajectory, sweep, np.arange(60)))
    assert [outlines[0][0], outlines[-1][0]] == [0, 59]
    np.testing.assert_allclose(outlines[0][1][[0, 2]], [[-15.75, -11.75, 0], [15.75, 11.75, 0]])
    frame, corners = outlines[-1]
    np.testing.assert_allclose(corners[:4].mean(axis=0), trajectory.centres_mm[frame], atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(corners[1] - corners[0]), 31.5)


def test_the_plot_of_a_trajectory_does_not_mirror_it():
    plotted = _plotted(np.eye(3))
    assert np.linalg.det(plotted) == pytest.approx(1.0)
    assert plotted[1, 2] == -1.0, "depth must point down"


def test_invalid_poses_are_left_out_of_the_path(trajectory, sweep, monkeypatch):
    valid = np.ones(60, bool)
    valid[20:30] = False
    figure = drawn(monkeypatch, pictures.write_trajectory, Trajectory(trajectory.poses, valid), sweep)
    (path,) = figure.axes[0].collections[:1]
    assert len(path._segments3d) == 59 - 11
    assert "50 of 60 frames" in figure.texts[0].get_text()


@pytest.mark.parametrize("valid", [np.zeros(60, bool), np.eye(1, 60, dtype=bool)[0]])
def test_a_trajectory_with_hardly_a_valid_pose_still_gives_pictures(trajectory, sweep, valid, tmp_path):
    hardly = Trajectory(trajectory.poses, valid)
    read_png(pictures.write_trajectory(hardly, sweep, tmp_path / "trajectory.png"))
    read_png(pictures.write_motion(hardly, tmp_path / "motion.png"))


def test_a_recording_of_tracking_alone_gets_a_path_without_outlines(trajectory, tmp_path):
    empty = Sweep(np.zeros((60, 0, 0), np.uint8))
    read_png(pictures.write_trajectory(trajectory, empty, tmp_path / "trajectory.png"))


def test_motion_shows_the_six_components_over_time_with_their_means(trajectory, sweep, monkeypatch):
    options = {"truth": trajectory, "timestamps_s": sweep.timestamps_s}
    figure = drawn(monkeypatch, pictures.write_motion, trajectory, **options)
    assert len(figure.axes) == 6
    for component, axes in enumerate(figure.axes):
        truth, shown, mean = axes.lines
        np.testing.assert_allclose(shown.get_ydata(), trajectory.parameters[:, component])
        np.testing.assert_allclose(truth.get_ydata(), trajectory.parameters[:, component])
        np.testing.assert_allclose(shown.get_xdata(), sweep.timestamps_s[1:])
        np.testing.assert_allclose(mean.get_ydata()[0], trajectory.parameters[:, component].mean())


@pytest.mark.parametrize("origin", ["measured", "simulated"])
def test_a_picture_calls_the_grey_curve_what_it_is(trajectory, sweep, monkeypatch, origin):
    truth = replace(trajectory, origin=origin)
    motion = drawn(monkeypatch, pictures.write_motion, trajectory, truth=truth)
    assert origin in [text.get_text() for text in motion.legends[0].get_texts()]
    path = drawn(monkeypatch, pictures.write_trajectory, trajectory, sweep, truth=truth)
    assert any(f"grey: {origin}," in text.get_text() for text in path.texts)


def test_motion_is_a_wide_picture(trajectory, tmp_path):
    picture = read_png(pictures.write_motion(trajectory, tmp_path / "motion.png"))
    assert picture.shape[:2] == (920, 1600)
    assert (picture != 255).any(axis=-1).mean() > 0.02


def test_a_missing_matplotlib_names_what_to_install(trajectory, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "dualtrack\[report\]"'):
        pictures.write_motion(trajectory, tmp_path / "motion.png")


def test_a_folder_that_cannot_be_written_is_named(trajectory, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"motion\.png"):
        pictures.write_motion(trajectory, tmp_path / "file" / "motion.png")


def test_drawing_leaves_the_global_state_of_matplotlib_alone(trajectory, tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    pictures.write_motion(trajectory, tmp_path / "motion.png")
    assert dict(matplotlib.rcParams) == before


def test_a_comparison_shows_the_same_places_of_both_volumes_at_one_scale(monkeypatch, trajectory, sweep):
    tracked = replace(sweep, tracked=replace(trajectory, origin="measured"))
    shift = np.eye(4)
    shift[2, 3] = 3.0
    moved = Trajectory(trajectory.poses @ shift, trajectory.valid)
    volumes = [reconstruct_volume(sweep, poses) for poses in (moved, trajectory)]
    figure = drawn(
        monkeypatch, pictures.write_comparison, *volumes, moved, trajectory, evaluate(moved, tracked).as_dict()
    )
    slices, (paths, errors) = figure.axes[:4], figure.axes[4:]
    for estimated, true in (slices[:2], slices[2:]):
        assert estimated.get_title("left").replace("Estimated", "True") == true.get_title("left")
        assert estimated.get_xlim() == true.get_xlim()
        assert estimated.get_ylim() == true.get_ylim()
        left, right = (axes.images[0].get_extent()[0] for axes in (estimated, true))
        assert left - right == pytest.approx(3, abs=0.5)
    for axes in slices:
        box, across, down = axes.get_window_extent(), np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim())
        assert box.width / across == pytest.approx(box.height / down, rel=0.01)
    assert [line.get_label() for line in paths.lines if not line.get_label().startswith("_")] == [
        "true path",
        "estimated path",
    ]
    assert len(errors.lines[0].get_xdata()) == len(sweep)


def sure(trajectory, size=0.002):
    """An estimate that says how sure it is."""
    return replace(trajectory, provenance={"model": "toy"}, sigma=np.full((len(trajectory) - 1, 6), size))


def test_motion_has_the_bands_that_the_model_states_and_that_of_the_length_holds_the_end(trajectory, monkeypatch):
    figure = drawn(monkeypatch, pictures.write_motion, sure(trajectory))
    assert len(figure.axes) == 7
    for component, axes in enumerate(figure.axes[:6]):
        (band,) = axes.collections
        motions = trajectory.parameters[:, component]
        low, high = motions - 1.96 * 0.002, motions + 1.96 * 0.002
        np.testing.assert_allclose(band.get_datalim(axes.transData).intervaly, [low.min(), high.max()], atol=1e-4)
    (band,) = figure.axes[6].collections
    end = band.get_paths()[0].vertices[:, 1].max()
    error = path_error(sure(trajectory))
    assert end == pytest.approx(trajectory.path_length_mm + 1.96 * error.end_length_mm, abs=1e-3)


def test_a_rule_of_thumb_is_named_and_drawn_for_the_length_alone(trajectory, sweep, monkeypatch):
    ruled = replace(trajectory, provenance={"model": "toy"})
    figure = drawn(monkeypatch, pictures.write_motion, ruled)
    assert not any(axes.collections for axes in figure.axes[:6])
    assert "rule of thumb" in figure.axes[6].get_title(loc="right")
    path = drawn(monkeypatch, pictures.write_trajectory, ruled, sweep)
    assert "rule of thumb" in path.texts[0].get_text()
    assert not any("Dashed" in text.get_text() for text in path.texts)


def test_rings_are_drawn_around_the_path_unless_they_would_hide_it(trajectory, sweep, monkeypatch):
    small, large = (
        drawn(monkeypatch, pictures.write_trajectory, sure(trajectory, size), sweep) for size in (0.002, 1.0)
    )
    assert len(small.axes[0].lines) == len(large.axes[0].lines) + 6
    assert [any("Dashed" in text.get_text() for text in some.texts) for some in (small, large)] == [True, False]


def test_measured_poses_are_drawn_without_any_error(trajectory, sweep, monkeypatch):
    measured = replace(trajectory, origin="measured")
    assert len(drawn(monkeypatch, pictures.write_motion, measured).axes) == 6
    assert "±" not in drawn(monkeypatch, pictures.write_trajectory, measured, sweep).texts[0].get_text()


def test_motion_says_below_what_it_shows_and_what_its_bands_rest_on(trajectory, monkeypatch):
    def caption(path):
        figure = drawn(monkeypatch, pictures.write_motion, path)
        (text,) = [text for text in figure.texts if text.get_gid() == "caption"]
        assert text.get_window_extent().x1 <= figure.bbox.x1
        return text.get_text()

    measured = replace(trajectory, origin="measured")
    assert caption(measured).endswith("Nothing says how far it may be off.")
    assert "the given motion" in caption(measured)
    estimate = replace(trajectory, origin="estimated")
    assert caption(estimate).endswith(
        f"The band of the length holds 95 of 100 true values, {path_error(estimate).basis}."
    )
    sure = replace(estimate, sigma=np.full((len(trajectory) - 1, 6), 0.1))
    assert caption(sure).endswith("The bands hold 95 of 100 true values, as the model says.")

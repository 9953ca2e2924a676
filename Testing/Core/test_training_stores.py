"""What training keeps on disk: resized frames and class tokens, of what is there now, whole, made once."""

import shutil
import threading
from collections import namedtuple
from dataclasses import replace

import filelock
import h5py
import numpy as np
import pytest
import torch
from oracle import tiny_model
from training_data import tiny_recipe, tracked_sweep, write_sweeps

from DualTrackCore.errors import Cancelled, InputError, OutputError
from DualTrackCore.io import load_sweep, save_sweep
from DualTrackCore.io.hdf5_frames import close_kept_files
from DualTrackCore.progress import Reporter, Stage
from DualTrackCore.research.training import image_store, stored, token_store
from DualTrackCore.research.training.image_store import ImageStore, ready_sweeps
from DualTrackCore.research.training.initial import recipe_card
from DualTrackCore.research.training.samples import SweepItems
from DualTrackCore.research.training.sweep_images import SweepImages
from DualTrackCore.research.training.sweeps import training_sweeps
from DualTrackCore.research.training.tasks import build_task
from DualTrackCore.tracking.preprocessing import Preprocessor

SIZE = 48
CPU = torch.device("cpu")


@pytest.fixture
def table(tmp_path):
    return write_sweeps(tmp_path / "data", train=2, val=1)


def ready(table, runs, stage="global", said=None, reporter=None, **changes):
    """The sets of a recipe, and its recipe, network and card."""
    recipe, network = tiny_recipe(stage, table, **changes), tiny_model().network
    card = recipe_card(recipe)
    say = None if said is None else said.append
    return ready_sweeps(recipe, network, card, runs, reporter or Reporter(), say), recipe, network, card


def files_of(sets):
    return [path for part in sets for path in part.image_files]


def times(paths):
    return [path.stat().st_mtime_ns for path in paths]


def test_stored_images_are_the_resized_frames_to_the_nearest_grey_value(table, tmp_path):
    changes = {"augmentation": {"hflip": 0.5, "reverse": 0.5}, "card": {"global_mean": 0.3, "global_std": 0.2}}
    changes["card"] |= {"name": "tiny", "spacing_mm": [0.5, 0.4]}
    sets, recipe, network, card = ready(table, tmp_path, **changes)
    kept = SweepItems(recipe, sets[0], network, card)
    exact = SweepItems(recipe, replace(sets[0], image_files=()), network, card)
    task, seen = build_task(network, recipe), set()
    for epoch in range(9):
        one, other = kept[(epoch, 1)], exact[(epoch, 1)]
        assert one["whole"].dtype == torch.uint8
        difference = task._whole({"whole": one["whole"]}) - other["whole"]
        assert difference.abs().max() <= 0.501 / 255 / 0.2
        assert torch.equal(one["targets"], other["targets"])
        seen.add(kept.draw(epoch, 1).flipped)
    assert seen == {True, False}


def test_images_are_stored_once_and_found_again(table, tmp_path):
    sets, *_ = ready(table, tmp_path)
    assert [np.load(path).shape for path in files_of(sets)] == [(24, SIZE, SIZE)] * 3
    before, said = times(files_of(sets)), []
    again, *_ = ready(table, tmp_path, "direction", said, model={**tiny_recipe("global").model, "direction": True})
    assert files_of(again) == files_of(sets)
    assert times(files_of(again)) == before
    assert said == []


@pytest.mark.parametrize("harm", ["cut", "changed", "written again"])
def test_images_that_are_cut_short_or_of_other_frames_are_made_anew_with_a_sentence(table, tmp_path, harm):
    sets, *_ = ready(table, tmp_path)
    first, others = files_of(sets)[0], times(files_of(sets)[1:])
    if harm == "cut":
        first.write_bytes(first.read_bytes()[:-1000])
    elif harm == "changed":  # one frame that nobody looks at for the key
        with h5py.File(table.parent / "0.h5", "a") as file:
            file["images"][7] = 0
    else:
        save_sweep(tracked_sweep(9), table.parent / "0.h5")
    said = []
    sets, *_ = ready(table, tmp_path, said=said)
    assert len(said) == 1
    assert said[0].startswith("1 files in ")
    assert said[0].endswith("are cut short or of frames that have changed; made anew.")
    assert times(files_of(sets)[1:]) == others
    assert len(list(files_of(sets)[0].parent.glob("*.npy"))) == 3
    frames = load_sweep(table.parent / "0.h5").window(0, 24)
    wanted = Preprocessor((72, 80), (0.5, 0.4), (0.5, 0.4), 1, SIZE).global_image(torch.from_numpy(frames)) * 255
    assert np.abs(np.load(files_of(sets)[0]) - wanted.numpy()).max() <= 0.501


def test_a_stop_leaves_whole_files_alone_and_the_rest_is_made_later(table, tmp_path, monkeypatch):
    monkeypatch.setattr(image_store, "_WINDOW_FRAMES", 8)
    reports = []

    def stop():
        return bool(reports) and reports[-1].stage == Stage.IMAGES and reports[-1].done >= 32

    with pytest.raises(Cancelled):
        ready(table, tmp_path, reporter=Reporter(reports.append, stop))
    assert [report.done for report in reports if report.stage == Stage.IMAGES] == [0, 8, 16, 24, 32]
    kept = list((tmp_path / "images").rglob("*.npy"))
    assert len(kept) == 1
    before = times(kept)
    sets, *_ = ready(table, tmp_path)
    assert times(kept) == before
    assert len(files_of(sets)) == 3


def test_two_that_need_the_same_images_make_them_once(table, tmp_path, monkeypatch):
    written, said, sets = (
        [],
        [],
        training_sweeps(
            tiny_recipe("global", table).data, recipe_card(tiny_recipe("global", table)), tmp_path, 1, Reporter()
        ),
    )
    original, begun, held = image_store.replacing, threading.Event(), threading.Event()

    def counting(path):
        written.append(path)
        begun.set()
        held.wait(30)
        return original(path)

    monkeypatch.setattr(image_store, "replacing", counting)
    results = []

    def make(say):
        store = ImageStore(tmp_path / "images", SIZE, (0.5, 0.4), 0)
        results.append(files_of(store.filled(sets, Reporter(), say)))

    def heard(sentence):
        said.append(sentence)
        held.set()

    one = threading.Thread(target=make, args=(None,))
    other = threading.Thread(target=make, args=(heard,))
    one.start()
    assert begun.wait(30)
    other.start()
    one.join()
    other.join()
    assert len(written) == len(set(written)) == 3
    assert results[0] == results[1]
    assert [sentence.split(" writes into ")[0] for sentence in said] == ["Another process"]


def test_waiting_for_another_process_can_be_cancelled(tmp_path):
    tmp_path.joinpath("x").mkdir()
    with (
        filelock.FileLock(tmp_path / "x" / "lock"),
        pytest.raises(Cancelled),
        stored.alone(tmp_path / "x", Reporter(None, lambda: True), None),
    ):
        pass


@pytest.mark.parametrize("stage", ["global", "local3"])
def test_without_room_on_the_disk_nothing_is_begun_and_the_sentence_says_how_much_it_takes(
    table, tmp_path, monkeypatch, stage
):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(stored.shutil, "disk_usage", lambda place: usage(10_000))
    sampling, augmentation = {"stored_crops": 0 if stage == "global" else 3}, {"crop": True}

    def store():
        sets, recipe, network, card = ready(table, tmp_path, stage, sampling=sampling, augmentation=augmentation)
        token_store.store_tokens(SweepItems(recipe, sets[0], network, card), network, tmp_path, CPU)

    with pytest.raises(OutputError, match=r"take .* kB in .* and 10 kB are free there; free some space") as caught:
        store()
    wanted = {"global": "72 frames take 166 kB", "local3": "2 sweeps take 27.6 kB"}[stage]
    assert wanted in str(caught.value)
    assert not list(tmp_path.rglob("*.npy"))


def test_a_folder_that_cannot_be_written_is_named(table, tmp_path):
    (tmp_path / "images").write_text("a file")
    with pytest.raises(OutputError, match=r"Cannot write into .*images.*choose another folder"):
        ready(table, tmp_path)


def test_a_frame_that_cannot_be_read_by_another_process_ends_in_its_sentence(table, tmp_path):
    with h5py.File(table.parent / "1.h5", "a") as file:
        file["images"].id.write_direct_chunk((7, 0, 0), b"this is no deflate stream")
    with pytest.raises(InputError, match=r"^1\.h5 cannot be read as HDF5, it is damaged") as caught:
        ready(table, tmp_path, workers=1)
    assert "\n" not in str(caught.value)


def test_stages_without_whole_frames_and_simulated_sweeps_store_no_images(table, tmp_path, monkeypatch):
    sets, *_ = ready(table, tmp_path, "local1")
    data = {"kind": "simulated", "seeds": [0, 1], "validation_seeds": [9, 10]}
    with monkeypatch.context() as patch:
        patch.setattr(image_store, "training_sweeps", lambda *_: sets)
        made, *_ = ready(table, tmp_path, "global", data=data)
    assert files_of(sets) == files_of(made) == []
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize(
    ("stage", "crops", "kept"), [("global", 0, 0), ("fusion", 1, 0), ("fusion", 0, 3), ("local1", 0, 3)]
)
def test_only_frames_that_items_are_cut_from_are_taken_into_memory(table, tmp_path, stage, crops, kept):
    sampling = {"window": 8, "random_frames": 6, "stored_crops": crops}
    sets, *_ = ready(table, tmp_path, stage, sampling=sampling)
    assert sum(isinstance(sweep.frames, np.ndarray) for part in sets for sweep in part.sweeps) == kept


def test_a_crop_is_read_without_the_rows_around_it(tmp_path, monkeypatch):
    from DualTrackCore import pixels

    table = write_sweeps(tmp_path / "data", train=2, val=1)
    for name in ("0.h5", "1.h5", "2.h5"):  # as the challenge stores them: without chunks
        with h5py.File(table.parent / name, "a") as file:
            frames = file["images"][:]
            del file["images"]
            file["images"] = frames
    sets, recipe, network, card = ready(
        table,
        tmp_path,
        "local1",
        data={"kind": "dualtrack_h5", "csv": str(table), "memory_gb": 0},
        augmentation={"hflip": 1.0, "crop": True},
    )
    items = SweepItems(recipe, sets[0], network, card)
    read, original = [], pixels._read_at
    monkeypatch.setattr(pixels, "_read_at", lambda *a: (read.append(a[2]), original(*a))[1])
    item, draw = items[(0, 0)], items.draw(0, 0)
    whole = SweepImages(replace(sets[0].sweeps[0], frames=sets[0].sweeps[0].window(0, 24)), card, 64, SIZE)
    assert torch.equal(item["local"], whole.local(draw.frames, draw.flipped, draw.shift))
    assert draw.flipped
    assert sum(read) == 8 * 64 * 80


def tokens_of(table, runs, reporter=None, **sampling):
    changes = {"augmentation": {"hflip": 0.5, "reverse": 0.5, "crop": True}}
    sampling = {"stored_crops": 2, "token_type": "float16", **sampling}
    sets, recipe, network, card = ready(
        table,
        runs,
        "local3",
        sampling=sampling,
        data={"kind": "dualtrack_h5", "csv": str(table), "memory_gb": 0},
        **changes,
    )
    items = SweepItems(recipe, sets[0], network, card)
    return token_store.store_tokens(items, network, runs, CPU, reporter=reporter)


def test_tokens_in_half_precision_are_those_in_single_precision_rounded(table, tmp_path):
    half, single = tokens_of(table, tmp_path), tokens_of(table, tmp_path, token_type="float32")
    for one, other in zip(half, single, strict=True):
        assert np.load(one).nbytes * 2 == np.load(other).nbytes
        np.testing.assert_array_equal(np.load(one), np.load(other).astype(np.float16))


def test_the_frames_of_a_sweep_are_read_once_for_all_variants_of_its_tokens(table, tmp_path, monkeypatch):
    read, original = [], h5py.Dataset.__getitem__

    def counting(self, key):
        values = original(self, key)
        if self.name == "/images" and len(values) > 1:
            read.append(len(values))
        return values

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counting)
    files = tokens_of(table, tmp_path)
    assert [np.load(path).shape for path in files] == [(8, 24, 16)] * 2
    assert read == [24, 24]


def test_storing_tokens_reports_every_pass_and_can_be_cancelled_within_a_sweep(table, tmp_path):
    reports = []
    with pytest.raises(Cancelled):
        tokens_of(table, tmp_path, Reporter(reports.append, lambda: len(reports) == 11))
    assert [(report.stage, report.done, report.total) for report in reports][-1] == (Stage.TOKENS, 10, 16)
    assert len(list(tmp_path.rglob("*.npy"))) == 1
    files = tokens_of(table, tmp_path, Reporter(reports.append))
    assert reports[-1].done == reports[-1].total == 8
    shutil.rmtree(tmp_path / "data")
    assert all(np.isfinite(np.load(path)).all() for path in files)


def test_tokens_of_frames_that_have_changed_are_not_used(table, tmp_path):
    before = tokens_of(table, tmp_path)
    close_kept_files()
    with h5py.File(table.parent / "0.h5", "a") as file:
        file["images"][7] = 0
    after = tokens_of(table, tmp_path)
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_on_a_card_tokens_are_computed_in_the_precision_of_the_recipe(table, tmp_path, monkeypatch):
    asked = []

    def session(network, device, precision):
        asked.append((device.type, precision))
        raise Cancelled

    monkeypatch.setattr(token_store, "InferenceSession", session)
    sets, recipe, network, card = ready(table, tmp_path, "local3", precision="fp16", sampling={"stored_crops": 1})
    for device in ("cuda", "cpu"):
        with pytest.raises(Cancelled):
            token_store.store_tokens(
                SweepItems(recipe, sets[0], network, card), network, tmp_path, torch.device(device)
            )
    assert asked == [("cuda", "fp16"), ("cpu", "fp32")]

"""What Slicer and SlicerIGSIO make of files becomes the sweep that the command line reads from them."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import slicer
import vtk
from clip_nodes import (
    add_simulated_clip,
    add_transforms,
    alike,
    array_of,
    below_frame,
    drifting,
    job_result,
    sequence_node,
    simulated,
)
from DualTrackSlicerLib.scene import FrameFollower, clips, fitSliceViews, showResults, sweepFromBrowser
from shared_files import shared_path
from test_io_dicom import make, region
from view import SliceViews

from DualTrackCore import load_sweep, save_sweep
from DualTrackCore.corrections.profile import Preset
from DualTrackCore.io.sequence_parts import FrameFields
from DualTrackCore.trajectory import PoseOrigin

SWEEP = simulated(8)


def written(
    folder: Path, suffix: str, changes: dict[bytes, bytes] | None = None, tracked=SWEEP.tracked, frames=SWEEP.frames
) -> Path:
    """A file of the sweep, with lines of its header changed as other programs write them."""
    path = folder / f"clip{suffix}"
    save_sweep(replace(SWEEP, tracked=tracked, frames=frames), path)
    content = path.read_bytes()
    for old, new in (changes or {}).items():
        start = content.index(old)
        content = content[:start] + new + content[content.index(b"\n", start) :]
    path.write_bytes(content)
    return path


def browse(scene, *sequences):
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    browser.SetAndObserveMasterSequenceNodeID(sequences[0].GetID())
    for sequence in sequences[1:]:
        browser.AddSynchronizedSequenceNode(sequence)
    return browser


def read_by_slicer(scene, path: Path, kind: str = "Volume") -> slicer.vtkMRMLSequenceNode:
    """A sequence as Slicer's own storage node reads it."""
    node = scene.AddNewNodeByClass("vtkMRMLSequenceNode", path.name)
    storage = getattr(slicer, f"vtkMRML{kind}SequenceStorageNode")()
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    return node


def read_by_igsio(scene, path: Path):
    """(browser, images, transforms) as the importer of SlicerIGSIO makes them of a MetaImage file.

    It reads by VTK, leaves the spacing in the image data, drops the statuses, and keeps the header as attributes.
    """
    reader = vtk.vtkMetaImageReader()
    reader.SetFileName(str(path))
    reader.Update()
    whole = reader.GetOutput()
    fields, images = FrameFields(), sequence_node(scene, "clip-Image-Seq", "s")
    for line in path.read_bytes().split(b"ElementDataFile")[0].decode().splitlines():
        key, _, text = (part.strip() for part in line.partition("="))
        if not fields.add(key, text):
            images.SetAttribute(f"Sequences.{key}", text)
    images.SetAttribute("Sequences.Source", "Image")
    times, _ = fields.times(whole.GetDimensions()[2])
    for number, seconds in enumerate(times):
        slab = vtk.vtkExtractVOI()
        slab.SetInputData(whole)
        slab.SetVOI(*whole.GetExtent()[:4], number, number)
        slab.Update()
        image = slab.GetOutput()
        image.SetExtent(*whole.GetExtent()[:4], 0, 0)
        image.SetSpacing(*whole.GetSpacing()[:2], 1)
        image.SetOrigin(0, 0, 0)
        images.SetDataNodeAtValue(slicer.vtkMRMLScalarVolumeNode(), f"{seconds:.6f}")
        images.GetNthDataNode(number).SetAndObserveImageData(image)
    browser, transforms = browse(scene, images), {}
    for (start, end), track in fields.transforms(len(times)).items():
        sequence = add_transforms(scene, browser, images, track.matrices, name=f"clip-{start}To{end}-Seq")
        sequence.SetAttribute("Sequences.Source", f"{start}To{end}")
        transforms[start, end] = sequence
    return browser, images, transforms


def require_same(read, path: Path, **options) -> None:
    """The clip in the scene is the sweep that the command line reads from the file."""
    file = load_sweep(path, **options)
    np.testing.assert_array_equal(read.sweep.frames[:], file.frames[:])
    assert (read.sweep.spacing_mm is None) == (file.spacing_mm is None)
    np.testing.assert_allclose(read.sweep.spacing_mm or 0, file.spacing_mm or 0, rtol=1e-6)
    np.testing.assert_allclose(read.sweep.timestamps_s, file.timestamps_s, atol=2e-3)
    assert (read.sweep.tracked is None) == (file.tracked is None)
    if file.tracked is not None:
        assert read.sweep.tracked.origin is file.tracked.origin
        np.testing.assert_array_equal(read.sweep.tracked.valid, file.tracked.valid)
        good = file.tracked.valid
        np.testing.assert_allclose(read.sweep.tracked.poses[good], file.tracked.poses[good], atol=1e-5)


def put_below(browser, images, transforms) -> None:
    proxy = browser.GetProxyNode(transforms)
    browser.GetProxyNode(images).SetAndObserveTransformNodeID(proxy.GetID())


#: Headers of MetaImage files: with the size of pixels in the header or not, and frames stored other ways round.
HEADERS = [
    {b"ElementSpacing": b"ElementSpacing = 1 1 1"},
    {b"ElementSpacing": b"ElementSpacing = 0.5 0.4 1"},
    {b"ElementSpacing": b"ElementSpacing = 0.3 0.3 1", b"DualTrackSpacingMm": b"Comment = none"},
    {b"ElementSpacing": b"ElementSpacing = 1 1 1", b"UltrasoundImageOr": b"UltrasoundImageOrientation = MND"},
    {b"ElementSpacing": b"ElementSpacing = 0.5 0.4 1", b"UltrasoundImageOr": b"UltrasoundImageOrientation = UFD"},
    {b"ElementSpacing": b"ElementSpacing = 1 1 1", b"UltrasoundImageOr": b"UltrasoundImageOrientation = FM"},
]


@pytest.mark.parametrize("is_below", [False, True])
@pytest.mark.parametrize("header", HEADERS, ids=lambda header: " ".join(v.decode() for v in header.values()))
def test_a_clip_of_slicer_igsio_is_the_sweep_of_its_file(scene, tmp_path, header, is_below):
    path = written(tmp_path, ".igs.mha", header)
    browser, images, transforms = read_by_igsio(scene, path)
    if is_below:
        put_below(browser, images, transforms["Image", "Reference"])
    require_same(sweepFromBrowser(browser), path)
    (offered,) = clips(scene)
    assert offered.spacing_mm == pytest.approx(load_sweep(path).spacing_mm, rel=1e-6)


@pytest.mark.parametrize("header", [*HEADERS[:2], HEADERS[3], HEADERS[1] | {b"DualTrackSpacingMm": b"Comment = none"}])
def test_pixels_without_tracking_have_the_size_that_the_header_says(scene, tmp_path, header):
    path = written(tmp_path, ".igs.mha", header, tracked=None)
    browser, _, transforms = read_by_igsio(scene, path)
    assert not transforms
    require_same(sweepFromBrowser(browser), path)
    assert clips(scene)[0].spacing_mm == pytest.approx((0.5, 0.4))


def test_an_estimate_that_slicer_igsio_read_is_not_taken_for_measured(scene, tmp_path):
    path = written(tmp_path, ".igs.mha", tracked=drifting(SWEEP.tracked))
    browser, _, _ = read_by_igsio(scene, path)
    read = sweepFromBrowser(browser)
    assert read.sweep.tracked.origin is PoseOrigin.ESTIMATED
    assert read.sweep.is_simulated
    require_same(read, path)


#: NRRD files: with transforms of the image where its node lies, as this project writes them for Slicer, and of pixels.
NRRD = [(".seq.nrrd", b"MFA"), *((".igs.nrrd", code) for code in (b"MFA", b"MND", b"UFD", b"UNA"))]


@pytest.mark.parametrize(("suffix", "code"), NRRD)
def test_an_nrrd_that_slicer_read_is_the_sweep_of_its_file(scene, tmp_path, suffix, code):
    path = written(tmp_path, suffix, {b"ultrasound image or": b"ultrasound image orientation:=" + code})
    require_same(sweepFromBrowser(browse(scene, read_by_slicer(scene, path))), path)


def test_an_nrrd_of_version_1_has_the_size_of_its_pixels_once(scene, tmp_path):
    directions = b"space directions: (0.5,0,0) (0,0.4,0) (0,0,1) none"
    changes = {b"space: ": b"space: left-posterior-superior", b"space directions": directions}
    changes |= {b"DualTrackFormatVersion": b"Comment:=none"}
    path = written(tmp_path, ".igs.nrrd", changes)
    require_same(sweepFromBrowser(browse(scene, read_by_slicer(scene, path))), path)


def test_frames_that_a_seq_nrrd_calls_invalid_stay_invalid(scene, tmp_path):
    path = written(tmp_path, ".seq.nrrd")
    status = next(
        line.split(b":=")[0]
        for line in path.read_bytes().splitlines()
        if b"Frame0003" in line and b"TransformStatus" in line
    )
    path = written(
        tmp_path,
        ".seq.nrrd",
        {status: status + b":=INVALID", b"Seq_Frame0005_Status": b"Seq_Frame0005_Status:=INVALID"},
    )
    read = sweepFromBrowser(browse(scene, read_by_slicer(scene, path)))
    assert read.sweep.tracked.valid.tolist() == [number != 3 for number in range(8)]
    assert read.sweep.frame_valid.tolist() == [number != 5 for number in range(8)]


@pytest.mark.parametrize("is_below", [False, True])
def test_transforms_that_slicer_read_place_images_that_it_read(scene, tmp_path, is_below):
    """Images with the size of pixels in their node, transforms of PLUS that bring pixels to mm as well."""
    images = read_by_slicer(scene, written(tmp_path, ".seq.nrrd", tracked=None))
    path = written(tmp_path, ".igs.mha")
    (tmp_path / "header.seq.mhd").write_bytes(path.read_bytes().split(b"ElementDataFile")[0] + b"ElementDataFile = x\n")
    transforms = read_by_slicer(scene, tmp_path / "header.seq.mhd", "LinearTransform")
    assert transforms.GetName() == "header-ImageToReference-Seq"
    browser = browse(scene, images, transforms)
    if is_below:
        put_below(browser, images, transforms)
    require_same(sweepFromBrowser(browser), path)


@pytest.mark.parametrize(("header", "step"), [(HEADERS[1], 1), (HEADERS[3], -1)])
def test_a_volume_and_the_frames_of_a_clip_of_slicer_igsio_lie_on_each_other_upright(
    application, tmp_path, header, step
):
    scene, views = application.scene, SliceViews(application.logic, application.scene)
    stored = SWEEP.frames[:][:, ::step]
    browser, images, _ = read_by_igsio(scene, written(tmp_path, ".igs.mha", header, frames=stored))
    clip = sweepFromBrowser(browser)
    nodes = showResults(scene, clip, job_result(clip.sweep, clip.sweep.tracked, voxel_mm=0.25))
    image = browser.GetProxyNode(images)
    fitSliceViews(image, application.logic)
    follower = FrameFollower(views.node("Red"), browser, images)
    for number in range(len(SWEEP)):
        browser.SetSelectedItemNumber(number)
        # The outermost pixels lie half outside of the volume.
        assert alike(below_frame(nodes.volume, image)[1:-1, 1:-1], stored[number, 1:-1, 1:-1]) > 0.95
        upright = views.middle("Red", SWEEP.frame_size[::-1], SWEEP.spacing_mm)
        assert alike(upright, SWEEP.frames[number : number + 1][0]) > 0.9
    follower.stop()
    views.close()
    matrix = vtk.vtkMatrix4x4()
    nodes.volume.GetIJKToRASMatrix(matrix)
    np.testing.assert_allclose(array_of(matrix)[:3, :3], np.diag([-0.25, -0.25, 0.25]), atol=1e-9)


@pytest.mark.parametrize("name", ["NwirePhantomFreehandCropped.igs.mha", "NwirePhantomFreehandCropped_4D.seq.nrrd"])
def test_a_recording_of_plus_with_its_calibration_is_the_sweep_of_its_file(scene, name):
    path = shared_path(f"data/seq/{name}")
    calibration = np.array(
        [
            [-0.0094, -0.0739, -0.0028, -103.5322],
            [0.0774, -0.0076, -0.0049, -43.1227],
            [0.0046, -0.0032, 0.0760, -93.3],
            [0, 0, 0, 1],
        ]
    )
    if name.endswith(".mha"):
        browser, images, _ = read_by_igsio(scene, path)
    else:
        images = read_by_slicer(scene, path)
        browser = browse(scene, images)
    add_transforms(scene, browser, images, np.tile(calibration, (20, 1, 1)), name="ImageToProbe")
    require_same(sweepFromBrowser(browser), path, calibration=calibration)


SCANNER = {"device": "Maker One", "transducer": "L12-3", "frequency_mhz": 7.5, "depth_mm": 40.0}


@pytest.mark.parametrize("way", ["igsio", "slicer"])
def test_what_a_file_says_of_the_scanner_is_known_however_it_is_loaded(scene, tmp_path, way):
    sweep = replace(SWEEP, provenance={**SWEEP.provenance, "scanner": SCANNER})
    path = tmp_path / ("clip.seq.nrrd" if way == "slicer" else "clip.igs.mha")
    save_sweep(sweep, path)
    browser = read_by_igsio(scene, path)[0] if way == "igsio" else browse(scene, read_by_slicer(scene, path))
    assert sweepFromBrowser(browser).sweep.provenance["scanner"] == SCANNER


def test_the_scanner_of_a_clip_that_slicer_loaded_from_dicom_is_read_where_its_database_has_the_file(
    scene, tmp_path, monkeypatch
):
    item = region(0, 0, 63, 47)
    item.TransducerFrequency = 7500
    facts = {"Manufacturer": "Maker", "ManufacturerModelName": "One", "TransducerData": "L12-3"}
    path = make(tmp_path / "a.dcm", SWEEP.frames[:], regions=[item], DepthOfScanField="40", **facts)
    browser, images = add_simulated_clip(scene, SWEEP)
    assert "scanner" not in sweepFromBrowser(browser).sweep.provenance
    # As the plugin for image sequences leaves it on every image.
    images.GetNthDataNode(0).SetAttribute("DICOM.instanceUIDs", "1.2.3")
    assert "scanner" not in sweepFromBrowser(browser).sweep.provenance  # no database: no application
    files = {"1.2.3": str(path)}
    database = SimpleNamespace(fileForInstance=lambda uid: files.get(uid, ""))
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    sweep = sweepFromBrowser(browser).sweep
    assert sweep.provenance["scanner"] == SCANNER
    assert Preset.of(sweep).unlike(Preset.of(load_sweep(path)), ("device", "transducer", "depth_mm")) == []
    files["1.2.3"] = str(tmp_path / "moved.dcm")
    assert "scanner" not in sweepFromBrowser(browser).sweep.provenance
    files.clear()
    assert "scanner" not in sweepFromBrowser(browser).sweep.provenance

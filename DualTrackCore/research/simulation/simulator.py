"""Simulated sweeps: drawn from a seed, rendered frame by frame, and stored in a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.files import replacing
from DualTrackCore.io import load_sweep, save_sweep
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter, Stage
from DualTrackCore.research.simulation.acquisition import Acquisition, Contact, Tissue, View
from DualTrackCore.research.simulation.motion import FAMILIES, probe_trajectory
from DualTrackCore.research.simulation.phantom import Phantom
from DualTrackCore.research.simulation.probe import Probe
from DualTrackCore.research.simulation.render import Renderer
from DualTrackCore.sweep import Sweep, validated_spacing
from DualTrackCore.threads import free_cores, threads_of_new_processes
from DualTrackCore.trajectory import Trajectory

#: Sweeps whose tables for rendering stay in memory; each may keep the 100 MB of its speckle.
_RENDERERS = 4


@dataclass(frozen=True, eq=False)
class SimulatedFrames:
    """Frames rendered on demand; equal for every slicing and in every process.

    Attributes:
        phantom, probe: the tissue and the transducer.
        poses: [N, 4, 4] frame0_from_image, mm.
        frame_size: rows and columns.
        spacing_mm: (across columns, down rows).
        levels: whether frames hold codes of echo levels in place of grey values
            (:func:`~DualTrackCore.research.simulation.render.levels_of_codes`).
        tissue, contact: structures of the tissue, and its deformation by the probe.
        wide: whether beams may be wider than 6.4 times the narrowest; else clipped, as for the first simulated sweeps.
    """

    phantom: Phantom
    probe: Probe
    poses: np.ndarray
    frame_size: tuple[int, int]
    spacing_mm: tuple[float, float]
    levels: bool = False
    tissue: Tissue = field(default_factory=Tissue)
    contact: Contact = field(default_factory=Contact)
    wide: bool = False
    dtype: np.dtype = field(default_factory=lambda: np.dtype(np.uint8))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(frames, rows, columns)."""
        return len(self.poses), *self.frame_size

    @property
    def _renderer(self) -> Renderer:
        return _renderer_of(self)

    def __len__(self) -> int:
        return len(self.poses)

    def __getitem__(self, key: slice | int) -> np.ndarray:
        """Frames of a slice as [n, H, W] uint8, or one frame [H, W]."""
        if not isinstance(key, slice):
            index = range(len(self))[key]
            return (self._renderer.level_codes if self.levels else self._renderer.frame)(self.poses[index], index)
        chosen = range(*key.indices(len(self)))
        frames = np.empty((len(chosen), *self.frame_size), np.uint8)
        for place, index in enumerate(chosen):
            frames[place] = self[index]
        return frames

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """All frames."""
        return self[:].astype(dtype or np.uint8, copy=False)


@lru_cache(maxsize=_RENDERERS)
def _renderer_of(frames: SimulatedFrames) -> Renderer:
    """The tables for rendering; those used last stay in memory, as many sweeps may be read in turn."""
    typical = frames.poses[len(frames.poses) // 2, :3, :3]
    return Renderer(
        frames.phantom,
        frames.probe,
        frames.frame_size,
        frames.spacing_mm,
        typical,
        frames.contact,
        frames.poses,
        frames.tissue,
        frames.wide,
    )


def rendered(
    sweep: Sweep, progress: ProgressCallback | None = None, cancelled: CancelledCallback | None = None
) -> Sweep:
    """The same sweep with all frames rendered now, in memory: faster if frames are read several times.

    Raises Cancelled: the caller asked to stop.
    """
    reporter = Reporter(progress, cancelled)
    frames = np.empty(sweep.frames.shape, np.uint8)
    for start, window in sweep.windows(16):
        reporter.report(Stage.SIMULATING, start, len(sweep))
        frames[start : start + len(window)] = window
    reporter.report(Stage.SIMULATING, len(sweep), len(sweep))
    return replace(sweep, frames=frames)


def simulated_sweep(
    seed: int,
    *,
    frames: int | None = None,
    family: str | None = None,
    probe: Probe | None = None,
    frame_size: tuple[int, int] = (128, 160),
    spacing_mm: float | tuple[float, float] = 0.3,
    speckle_seed: int | None = None,
    homogeneous: bool = False,
) -> Sweep:
    """A tracked freehand sweep of a phantom; arguments that are None are drawn from the seed.

    Args:
        seed: equal seeds give equal sweeps.
        frames: number of frames; drawn from 200 to 600.
        family: path of the probe, one of :data:`FAMILIES`.
        probe: None draws a linear one of 5 to 10 MHz, as wide as the frame.
        frame_size: rows and columns.
        spacing_mm: size of a pixel: one number, or (across columns, down rows).
        speckle_seed: sweeps with the same one share the 100 MB of speckle, each at another place of it.
        homogeneous: speckle without anatomy.

    Returns:
        A sweep whose frames are rendered when they are read, and whose `tracked` trajectory is exact.

    Raises InputError: an option is out of its range.
    """
    if seed < 0:
        raise InputError(f"The seed is {seed}; it must be 0 or more.")
    spacing = validated_spacing(spacing_mm)
    if spacing is None:
        raise InputError("A simulated sweep needs a pixel spacing in mm.")
    if len(frame_size) != 2 or not all(8 <= side <= 4096 for side in frame_size):
        raise InputError(f"The frame size is {tuple(frame_size)}; rows and columns must lie between 8 and 4096.")
    random = np.random.default_rng([seed, 0x51A5])
    count = int(random.integers(200, 601)) if frames is None else frames
    drawn_family = FAMILIES[random.integers(len(FAMILIES))]
    family = drawn_family if family is None else family
    pitch_mm = float(np.clip(frame_size[1] * spacing[0] / 192, 0.05, 1.0))
    drawn_probe = Probe.drawn(random, elements=192, pitch_mm=pitch_mm)
    probe = drawn_probe if probe is None else probe
    depth = (frame_size[0] - 1) * spacing[1]
    trajectory = probe_trajectory(family, count, seed, face_to_centre_mm=depth / 2, frame_rate_hz=probe.frame_rate_hz)
    phantom = _phantom(seed, speckle_seed, depth, family, random, homogeneous)
    source = SimulatedFrames(phantom, probe, trajectory.poses, tuple(frame_size), spacing)
    return _tracked(source, trajectory, probe=asdict(probe))


def acquired_sweep(
    seed: int,
    acquisition: Acquisition,
    frames: int,
    spacing_mm: float | tuple[float, float],
    speckle_seed: int | None = None,
    levels: bool = False,
) -> Sweep:
    """A tracked freehand sweep of an acquisition, before its effects at loading.

    Args:
        seed: of anatomy and path; equal arguments give equal sweeps.
        acquisition: probe, view, motion, tissue and contact are rendered, the scanner is not.
        frames: number of frames.
        spacing_mm: size of a pixel: one number, or (across columns, down rows). The view's depth and width divided by
            it give rows and columns, at least 8.
        speckle_seed: sweeps with the same one share the 100 MB of speckle, each at another place of it.
        levels: whether frames hold codes of echo levels in place of grey values, see :class:`SimulatedFrames`.

    Returns:
        As :func:`simulated_sweep`; `provenance` holds the acquisition as plain values.

    Raises InputError: a number is out of its range.
    """
    spacing = validated_spacing(spacing_mm)
    if spacing is None:
        raise InputError("A simulated sweep needs a pixel spacing in mm.")
    view, motion, probe = acquisition.view, acquisition.motion, acquisition.probe
    frame_size = (max(8, round(view.depth_mm / spacing[1])), max(8, round(view.width_mm / spacing[0])))
    real = spacing[0] / view.magnification, spacing[1] / view.magnification
    depth = (frame_size[0] - 1) * real[1]
    trajectory = probe_trajectory(
        motion.family,
        frames,
        seed,
        face_to_centre_mm=depth / 2,
        step_mm=motion.step_mm / view.magnification,
        frame_rate_hz=probe.frame_rate_hz,
        tremor=motion.tremor,
        wander=motion.wander,
        jerks_hz=motion.jerks_hz,
    )
    phantom = _phantom(seed, speckle_seed, depth, motion.family, np.random.default_rng([seed, 0xACC1]))
    source = SimulatedFrames(
        phantom, probe, trajectory.poses, frame_size, real, levels, acquisition.tissue, acquisition.contact, True
    )
    sweep = _tracked(source, trajectory, acquisition=acquisition.as_dict())
    if view.magnification == 1.0:
        return sweep
    shown = trajectory.poses.copy()
    shown[:, :3, 3] *= view.magnification
    return replace(sweep, spacing_mm=spacing, tracked=replace(trajectory, poses=shown))


def _phantom(
    seed: int,
    speckle_seed: int | None,
    depth_mm: float,
    family: str,
    random: np.random.Generator,
    homogeneous: bool = False,
) -> Phantom:
    """A phantom as deep as the picture; positive steps run from distal to proximal, against the limb's direction."""
    heading = random.normal(0, 10) + (-90 if family.startswith("Par") else 180)
    return Phantom(seed, speckle_seed, float(np.clip(depth_mm, 10, 200)), heading, homogeneous)


def _tracked(source: SimulatedFrames, trajectory: Trajectory, **origin: object) -> Sweep:
    """The sweep of these frames with exact poses; `origin` goes into its provenance."""
    provenance = {
        "source": "simulation",
        "format": "simulated sweep",
        "simulated": True,
        "seed": trajectory.provenance["seed"],
        "family": trajectory.provenance["family"],
        **origin,
        "spacing_source": "simulation",
    }
    times = np.arange(len(source)) / source.probe.frame_rate_hz
    return Sweep(source, source.spacing_mm, times, tracked=trajectory, provenance=provenance)


@dataclass(frozen=True)
class Simulation:
    """Settings of a simulated sweep: the arguments of :func:`~DualTrackCore.research.simulation.simulated_sweep`.

    An `acquisition` replaces family and frame size; then frames are codes of echo levels, or with `shown` the pictures
    of its scanner.
    """

    seed: int
    frames: int
    family: str | None
    speckle_seed: int | None
    frame_size: tuple[int, int]
    spacing_mm: tuple[float, float]
    acquisition: Acquisition | None = None
    shown: bool = False

    def file_name(self, simulator: str) -> str:
        """Name of the stored sweep: a hash of the settings and the simulator, then the seed."""
        settings = [simulator, self.frames, self.family, self.speckle_seed, self.frame_size, self.spacing_mm]
        if self.acquisition is not None:
            settings += [{k: v for k, v in self.acquisition.as_dict().items() if v is not False}, self.shown]
        return f"{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]}-{self.seed}.h5"

    def sweep(self) -> Sweep:
        """The sweep; frames are rendered when they are read (with `shown`: now)."""
        if self.acquisition is None:
            named = {k: v for k, v in vars(self).items() if k not in ("acquisition", "shown")}
            return simulated_sweep(**named)
        sweep = acquired_sweep(
            self.seed, self.acquisition, self.frames, self.spacing_mm, speckle_seed=self.speckle_seed, levels=True
        )
        if not self.shown:
            return sweep
        from DualTrackCore.research.simulation.clip import shown_clip  # needs torch

        return shown_clip(sweep, self.acquisition, self.seed)

    def store(self, path: Path) -> None:
        """Simulate the sweep into a file; where another process was quicker, its file stays, as it may be open already.

        Raises OutputError: it cannot be written.
        """
        with replacing(path, keep=True) as own:
            save_sweep(self.sweep(), own)


#: Sweeps that a process must have to simulate, for it to be started.
_LEAST_SWEEPS = 8


def simulator_hash(simulation: Simulation) -> str:
    """Hash of two frames and a path, so that stored sweeps are used by the same version of the simulator only."""
    acquisition = simulation.acquisition
    if acquisition is not None:  # a small picture with every rendered effect
        acquisition = Acquisition(
            view=View(depth_mm=16, width_mm=16, magnification=1.1),
            tissue=Tissue(coherent_part=0.4, fibre_mm=5.0, bone=True),
            contact=Contact(compression=0.05, drag_mm=1.0),
        )
    sample = replace(simulation, seed=0, frames=2, family=None, speckle_seed=None, acquisition=acquisition).sweep()
    return hashlib.sha256(sample.window(0, 2).tobytes() + sample.tracked.poses.tobytes()).hexdigest()


def stored_sweeps(
    simulations: Sequence[Simulation], folder: Path, workers: int, reporter: Reporter
) -> tuple[Sweep, ...]:
    """The sweeps from their files, after simulating the missing ones.

    Args:
        simulations: all of one frame size and spacing.
        folder: of the files; created if missing.
        workers: most processes that simulate.
        reporter: receives `Stage.SWEEPS`.

    Returns:
        Sweeps that read their frames from the files.

    Raises:
        OutputError: the folder cannot be written.
        Cancelled: the caller asked to stop; sweeps that are stored already stay.
    """
    if not simulations:
        return ()
    simulator = simulator_hash(simulations[0])
    paths = [folder / simulation.file_name(simulator) for simulation in simulations]
    store_missing(list(zip(simulations, paths, strict=True)), workers, reporter)
    return tuple(load_sweep(path) for path in paths)


def store_missing(jobs: Sequence[tuple[Simulation, Path]], workers: int, reporter: Reporter) -> None:
    """Simulate the sweeps whose files are missing; fewer than eight a process are not worth starting it.

    Args, Raises: as for :func:`stored_sweeps`.
    """
    missing = [(job, path) for job, path in jobs if not path.is_file()]
    # Sweeps with the same speckle follow each other, because speckle takes longer than a sweep.
    missing.sort(key=lambda pair: (pair[0].speckle_seed or 0, pair[0].seed))
    _in_parallel(_store, missing, min(workers, len(missing) // _LEAST_SWEEPS), reporter)


def _store(job: tuple[Simulation, Path]) -> None:
    simulation, path = job
    simulation.store(path)


def _in_parallel(work: Callable, jobs: Sequence, workers: int, reporter: Reporter) -> None:
    """Do all jobs, in `workers` processes if there are several."""
    if min(workers, len(jobs)) <= 1:
        for done, job in enumerate(jobs):
            reporter.report(Stage.SWEEPS, done, len(jobs))
            work(job)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # Forks of a process that has run torch may hang, so workers are spawned.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        with threads_of_new_processes(max(1, free_cores() // workers)):
            all_done = pool.map(work, jobs)
        for done, _ in enumerate(all_done):
            reporter.report(Stage.SWEEPS, done, len(jobs))

"""Whether this Python can run a job: one sentence for the user, and facts for whoever helps."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from importlib import metadata
from typing import TYPE_CHECKING, Any

from DualTrackCore import __version__
from DualTrackCore.errors import DualTrackError, InputError
from DualTrackCore.memory import available_memory_bytes, format_bytes, is_out_of_memory
from DualTrackCore.threads import free_cores
from DualTrackCore.worker.protocol import PROTOCOL

if TYPE_CHECKING:
    from types import ModuleType

#: Packages that a run imports, besides torch.
PACKAGES = ("timm", "torchvision", "numpy", "safetensors", "numba", "scipy")
#: What a short sweep with the published weights takes, memory and (for frames and results on their way) disk.
LEAST_MEMORY_BYTES = 2_000_000_000
LEAST_DISK_BYTES = 2_000_000_000


def preflight(device: str = "auto") -> dict[str, Any]:
    """Look at what a run needs; torch is imported only if it is there.

    Args:
        device: as in :class:`~DualTrackCore.run.RunSettings`; a server is asked what it offers, and "offer" has that.

    Returns:
        "ready": bool; "sentence": what is ready, or what is missing and the remedy; "notes": further sentences, such as
        little memory; "missing": names of packages; "diagnostics": plain values to be copied into a report.
    """
    if "://" in device:
        return _server(device)
    missing = [name for name in ("torch", *PACKAGES) if importlib.util.find_spec(name) is None]
    diagnostics = _machine()
    torch, broken = (None, None) if "torch" in missing else _import("torch")
    if torch is not None and not missing:
        _, broken = _import("timm")
    if torch is not None:
        diagnostics["torch"] = _torch_facts(torch)
    usable = torch is not None and not missing and broken is None
    chosen, refused, left_out = _device(torch, device) if usable else (None, None, "")
    diagnostics["device"] = chosen
    problem = (_missing_sentence(missing) if missing else None) or broken or refused
    diagnostics["problem"] = problem
    return {
        "ready": problem is None,
        "sentence": problem or _ready_sentence(torch, chosen, diagnostics),
        "notes": ([left_out] if left_out else []) + _notes(diagnostics),
        "missing": missing,
        "diagnostics": diagnostics,
    }


def _server(address: str) -> dict[str, Any]:
    """Whether a server is ready, in the same words."""
    from DualTrackCore.remote import Server

    facts = {"missing": [], "notes": [], "diagnostics": {**_machine(), "device": address}}
    try:
        offer = Server.at(address).offer()
    except DualTrackError as error:
        return {"ready": False, "sentence": str(error), "offer": None, **facts}
    return {"ready": True, "sentence": offer.sentence, "offer": vars(offer), **facts}


def _machine() -> dict[str, Any]:
    temporary = tempfile.gettempdir()
    return {
        "dualtrack": __version__,
        "protocol": PROTOCOL,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "cores": free_cores(),
        "memory_free_bytes": available_memory_bytes(),
        "temporary_folder": temporary,
        "disk_free_bytes": shutil.disk_usage(temporary).free,
        "nvidia_driver": shutil.which("nvidia-smi") is not None,
        "packages": {name: _version(name) for name in ("torch", *PACKAGES, "SimpleITK", "h5py", "pydicom", "tqdm")},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _import(name: str) -> tuple[ModuleType | None, str | None]:
    """The module, or a sentence: a package can be there and still not load, as with a missing system library."""
    try:
        return importlib.import_module(name), None
    except Exception as error:
        if is_out_of_memory(error):
            return None, f"The memory does not suffice to load the package {name}; close other programs."
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return None, f"The package {name} is installed and does not load ({reason}); install it again."


def _missing_sentence(missing: list[str]) -> str:
    names = " and ".join([", ".join(missing[:-1]), missing[-1]] if len(missing) > 1 else missing)
    verb, it = ("is", "it") if len(missing) == 1 else ("are", "them")
    return (
        f"Not ready: {names} {verb} missing; let the DualTrack module of 3D Slicer install {it}, "
        f"or run: {os.path.basename(sys.executable)} -m pip install {' '.join(missing)}"
    )


def _torch_facts(torch: ModuleType) -> dict[str, Any]:
    devices = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name = torch.cuda.get_device_name(index)
            devices.append({"device": f"cuda:{index}", "name": name, "free_bytes": free, "total_bytes": total})
    return {
        "version": str(torch.__version__),
        "cuda": torch.version.cuda,
        "mps": torch.backends.mps.is_available(),
        "threads": torch.get_num_threads(),
        "devices": devices,
    }


def _device(torch: ModuleType, device: str) -> tuple[str | None, str | None, str]:
    """The device that a run would take, or a sentence why there is none; and one where "auto" leaves a device out."""
    from DualTrackCore.tracking.device import choose_device

    try:
        chosen, left_out = choose_device(device)
        torch.zeros(1, device=chosen)  # a driver that does not fit the torch fails here and not before
    except InputError as error:
        return None, f"Not ready: {error}", ""
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        return None, f"Not ready: the device {device} does not work ({reason}); choose the device cpu.", ""
    return str(chosen), None, left_out


def _ready_sentence(torch: ModuleType, device: str, diagnostics: dict[str, Any]) -> str:
    cores = f"{diagnostics['cores']} core{'' if diagnostics['cores'] == 1 else 's'}"
    free = f"{format_bytes(diagnostics['memory_free_bytes'])} free"
    if device.startswith("cuda"):
        index = int(device.partition(":")[2] or 0)
        card = diagnostics["torch"]["devices"][index]
        where = f"{card['name']} with {format_bytes(card['free_bytes'])} free, {cores}, {free}"
    else:
        where = f"{'Apple GPU' if device == 'mps' else 'CPU'} with {cores}, {free}"
    return f"Ready: torch {torch.__version__} on {where}."


def _notes(diagnostics: dict[str, Any]) -> list[str]:
    notes = []
    if diagnostics["memory_free_bytes"] < LEAST_MEMORY_BYTES:
        free = format_bytes(diagnostics["memory_free_bytes"])
        notes.append(f"Only {free} of memory is free; close other programs or choose a smaller chunk.")
    if diagnostics["disk_free_bytes"] < LEAST_DISK_BYTES:
        free = format_bytes(diagnostics["disk_free_bytes"])
        folder = diagnostics["temporary_folder"]
        notes.append(f"Only {free} of disk is free in {folder}; free some space or set TMPDIR to another folder.")
    facts = diagnostics.get("torch")
    if facts is not None and diagnostics["nvidia_driver"] and not facts["devices"]:
        text = "There is an NVIDIA driver that this torch cannot use; install a torch for CUDA that fits the driver."
        notes.append(text)
    return notes

"""A published model of 3.5 MB on a server of this machine, for tests of downloads and installation."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from file_server import FileServer, serving

from DualTrackCore.network import catalogue, installation
from DualTrackCore.network.catalogue import published_models

CONTENT = random.Random(0).randbytes(3_500_000)


@pytest.fixture
def nothing_ships(monkeypatch, tmp_path_factory) -> None:
    """Only models that are installed are there."""
    folder = tmp_path_factory.mktemp("nothing")
    monkeypatch.setattr(catalogue, "shipped_folder", lambda: folder)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(FileServer(CONTENT)) as running:
        yield running


@pytest.fixture
def entry(server):
    return replace(published_models()["dualtrack-tusrec2024"], url=server.url, size_bytes=len(CONTENT))


def fetch(entry, folder, **options):
    return installation.fetch(entry, consent=True, folder=folder, **options)

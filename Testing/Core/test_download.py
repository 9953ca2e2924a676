"""How a published model arrives: whole, in parts, interrupted, refused."""

import json
import shutil
from collections import namedtuple
from dataclasses import replace

import pytest
from published_model_server import CONTENT, fetch

from DualTrackCore.errors import Cancelled, CheckpointError, OutputError
from DualTrackCore.network.catalogue import installed_models
from DualTrackCore.network.installation import DownloadError
from DualTrackCore.progress import Stage

pytestmark = pytest.mark.usefixtures("nothing_ships")
Usage = namedtuple("Usage", "total used free")


def interrupted(server, entry, folder, after):
    """Leave a part of `after` bytes behind, as a connection that ends early does."""
    server.cut_after = after
    with pytest.raises(DownloadError, match="ended after"):
        fetch(entry, folder)
    server.cut_after = None
    part = folder / f"{entry.name}.part"
    assert after - (1 << 16) < part.stat().st_size <= after
    return part


def test_progress_runs_from_nothing_to_the_whole_file_in_bytes(entry, tmp_path):
    seen = []
    fetch(entry, tmp_path, progress=seen.append)
    done = [p.done for p in seen]
    assert done[0] == 0
    assert done == sorted(done)
    assert (seen[-1].done, seen[-1].total, seen[-1].stage) == (len(CONTENT), len(CONTENT), Stage.DOWNLOADING)


def test_an_interrupted_download_goes_on_where_it_ended(server, entry, tmp_path):
    arrived = interrupted(server, entry, tmp_path, 1_200_000).stat().st_size
    assert fetch(entry, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={arrived}-"]
    assert not list(tmp_path.glob("*.part*"))


def test_a_moved_file_is_followed_from_the_start_and_for_the_rest(server, entry, tmp_path):
    entry = replace(entry, url=server.moved_url)
    arrived = interrupted(server, entry, tmp_path, 1_200_000).stat().st_size
    assert fetch(entry, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={arrived}-"]


def test_a_server_without_ranges_sends_everything_again(server, entry, tmp_path):
    server.ranges = False
    interrupted(server, entry, tmp_path, 1_200_000)
    assert fetch(entry, tmp_path).read_bytes() == CONTENT


def test_a_part_of_an_older_file_is_not_continued(server, entry, tmp_path):
    interrupted(server, entry, tmp_path, 1_200_000)
    server.content, server.etag = CONTENT[::-1], '"two"'
    assert fetch(entry, tmp_path).read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("etag", [None, 'W/"one"'])
def test_a_part_without_a_strong_validator_is_not_continued(etag, server, entry, tmp_path):
    server.etag = etag
    interrupted(server, entry, tmp_path, 1_200_000)
    assert fetch(entry, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, None]


def test_a_part_longer_than_the_file_is_dropped(server, entry, tmp_path):
    part = interrupted(server, entry, tmp_path, 1_200_000)
    with part.open("ab") as file:
        file.write(bytes(len(CONTENT)))
    assert fetch(entry, tmp_path).read_bytes() == CONTENT


def test_a_refused_rest_of_a_part_costs_one_call_and_a_fresh_start(server, entry, tmp_path):
    interrupted(server, entry, tmp_path, 1_200_000)
    server.status = 416
    with pytest.raises(DownloadError, match="answered 416"):
        fetch(entry, tmp_path)
    server.status = None
    assert fetch(entry, tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] is None


def test_another_part_than_requested_costs_one_call_and_a_fresh_start(server, entry, tmp_path):
    interrupted(server, entry, tmp_path, 1_200_000)
    server.content = CONTENT + b"more"
    with pytest.raises(DownloadError, match="another part of the file than requested"):
        fetch(entry, tmp_path)
    server.content = CONTENT
    assert fetch(entry, tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] is None


def test_a_whole_part_is_installed_without_the_network(server, entry, tmp_path):
    interrupted(server, entry, tmp_path, 1_200_000).write_bytes(CONTENT)
    server.status = 500
    assert fetch(entry, tmp_path).read_bytes() == CONTENT


def test_a_cancelled_download_keeps_what_arrived_and_goes_on_later(server, entry, tmp_path):
    seen = []
    with pytest.raises(Cancelled, match="are kept"):
        fetch(entry, tmp_path, progress=seen.append, cancelled=lambda: len(seen) >= 2)
    kept = (tmp_path / f"{entry.name}.part").stat().st_size
    assert 0 < kept < len(CONTENT)
    assert installed_models(tmp_path) == []
    assert fetch(entry, tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={kept}-"


def test_a_file_of_another_checksum_is_deleted(entry, tmp_path):
    with pytest.raises(CheckpointError, match="checksum") as raised:
        fetch(replace(entry, sha256="0" * 64), tmp_path)
    assert entry.url in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_size_is_deleted(entry, tmp_path):
    with pytest.raises(CheckpointError, match="3500000 bytes"):
        fetch(replace(entry, size_bytes=5), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_loaded_is_deleted(entry, tmp_path):
    def check(path):
        raise CheckpointError(f"{path.name} is not a checkpoint of this network.")

    with pytest.raises(CheckpointError, match="not a checkpoint of this network"):
        fetch(entry, tmp_path, check=check)
    assert list(tmp_path.iterdir()) == []


def test_a_web_page_is_not_taken_for_a_model(server, entry, tmp_path):
    server.content_type = "text/html; charset=utf-8"
    with pytest.raises(DownloadError, match="web page"):
        fetch(entry, tmp_path)


def test_an_error_of_the_server_names_the_way_without_network(server, entry, tmp_path):
    server.status = 404
    with pytest.raises(DownloadError, match=rf"answered 404.*`dualtrack models import {entry.name} FILE`"):
        fetch(entry, tmp_path)


def test_no_connection_names_the_way_without_network(entry, tmp_path):
    nobody = replace(entry, url="http://127.0.0.1:1/weights.pt")
    with pytest.raises(DownloadError, match=r"no connection to the server \(.*refused.*`dualtrack models import"):
        fetch(nobody, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_too_small_a_disk_is_said_before_anything_is_written(entry, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10, 10, 1_000_000))
    with pytest.raises(OutputError, match=r"has 1 MB free.*needs 70\.6 MB.*DUALTRACK_MODELS"):
        fetch(entry, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(entry, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="DUALTRACK_MODELS"):
        fetch(entry, tmp_path / "file" / "models")


def test_a_damaged_memory_of_a_part_only_costs_a_fresh_start(server, entry, tmp_path):
    part = interrupted(server, entry, tmp_path, 1_200_000)
    part.with_name(part.name + ".json").write_text(json.dumps({"url": 3}))
    assert fetch(entry, tmp_path).read_bytes() == CONTENT

"""Atomic writes, locks and differences of records."""

import os
import subprocess
import sys

import pytest

from simvp_climate.data.files import check_parent, differences, lock, unfinished_path, write_atomically


def test_a_file_is_replaced_when_it_is_complete(tmp_path):
    path = tmp_path / "a.nc"
    path.write_text("old")

    def write(unfinished):
        assert unfinished == unfinished_path(path) and unfinished.suffix == ".nc"
        unfinished.write_text("new")
        assert path.read_text() == "old"

    write_atomically(path, write)
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_write_keeps_the_old_content(tmp_path, failure):
    path = tmp_path / "a"
    path.write_text("old")

    def write(unfinished):
        unfinished.write_text("half")
        raise failure

    with pytest.raises(type(failure)):
        write_atomically(path, write)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_written_over_the_remains_of_a_killed_process(tmp_path):
    path = tmp_path / "a.zarr"
    unfinished_path(path).mkdir()
    (unfinished_path(path) / "half").touch()

    def write(unfinished):
        unfinished.mkdir()
        (unfinished / "whole").touch()

    write_atomically(path, write)
    assert [file.name for file in path.iterdir()] == ["whole"] and list(tmp_path.iterdir()) == [path]


def test_file_and_name_are_synced_to_the_disk(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.readlink(f"/proc/self/fd/{file}")), fsync(file)))
    write_atomically(tmp_path / "a", lambda path: path.write_text("new"))
    assert synced == [str(tmp_path / "unfinished-a"), str(tmp_path)]
    write_atomically(tmp_path / "b", lambda path: path.write_text("new"), sync=False)
    assert len(synced) == 2


def test_processes_that_write_the_same_file_have_their_own_temporary_names(tmp_path):
    names = []
    write_atomically(tmp_path / "a.npz", lambda path: (names.append(path.name), path.touch()), concurrent=True)
    assert names == [f"unfinished-a-{os.getpid()}.npz"] and (tmp_path / "a.npz").exists()


def test_a_missing_parent_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=f"no folder '{tmp_path}/nowhere'.*mkdir -p"):
        check_parent(tmp_path / "nowhere" / "a")
    monkeypatch.chdir(tmp_path)
    assert str(check_parent("a")) == "a"


def test_a_lock_excludes_other_processes_until_it_is_released(tmp_path):
    code = f"""
from pathlib import Path
from simvp_climate.data.files import lock
with lock(Path({str(tmp_path)!r})):
    pass
"""

    def enter():
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr

    with lock(tmp_path):
        assert "BlockingIOError" in enter()
    assert enter() == ""


def test_differences_of_nested_records():
    before = {"task": {"step": "6h", "levels": [500]}, "seed": 0, "nan": float("nan"), "gone": 1, "data": "aa"}
    now = {"task": {"step": "6h", "levels": [850]}, "seed": 0, "nan": float("nan"), "added": 2, "data": "bb"}
    assert differences(before, now, {"data": "other values"}) == [
        "task.levels is [850], was [500]",
        "added is new",
        "data differs (other values)",
        "gone is missing",
    ]
    assert differences({"data": None}, {"data": "bb"}, {"data": "other values"}) == ["data is 'bb', was None"]
    assert differences(before, before) == []

"""Files are written whole or not at all, and nothing of somebody's is written over."""

import os

import pytest

from ddpm import UserError
from ddpm.utils.files import (
    atomic_write,
    free_name,
    is_occupied,
    is_temporary,
    link_or_copy,
    read_text,
    require_writable,
)


def test_a_file_is_the_old_one_or_the_new_one(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")

    def half():
        with atomic_write(path) as beside:
            beside.write_text("half")
            assert is_temporary(beside)
            assert path.read_text() == "old"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert path.read_text() == "old"
    with atomic_write(path) as beside:
        beside.write_text("new")
    assert path.read_text() == "new"


def test_a_second_name_for_a_file(tmp_path, monkeypatch):
    link_or_copy(tmp_path / "none", tmp_path / "b")
    assert not (tmp_path / "b").exists()
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "new"

    def no_links(*args):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", no_links)
    (tmp_path / "a").write_text("newer")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "newer"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_name_that_is_free(tmp_path):
    path = tmp_path / "x.png"
    assert free_name(path) == path
    path.write_text("")
    assert free_name(path) == tmp_path / "x-2.png"
    (tmp_path / "run").mkdir()
    assert free_name(tmp_path / "run") == tmp_path / "run"
    assert is_occupied(path)
    assert is_occupied(tmp_path)
    assert not is_occupied(tmp_path / "run")


def test_what_cannot_be_written_or_read(tmp_path):
    require_writable(tmp_path / "a" / "b")
    assert not list((tmp_path / "a" / "b").iterdir())
    (tmp_path / "file").write_text("12345")
    with pytest.raises(UserError, match="cannot write to"):
        require_writable(tmp_path / "file" / "run")
    assert read_text(tmp_path / "file", 5) == "12345"
    with pytest.raises(ValueError, match="more than 4 bytes"):
        read_text(tmp_path / "file", 4)
    with pytest.raises(ValueError, match="not a file"):
        read_text(tmp_path, 4)

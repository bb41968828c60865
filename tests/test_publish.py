"""A file has its final name only when it is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from prognosis_dask.publish import replacing


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with replacing(path) as aside:
        aside.write_text("ne")
        assert path.read_text() == "old"
        aside.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_stays_as_it_was_where_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as aside:
            aside.write_text("half")
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]

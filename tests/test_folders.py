"""A folder that cannot be written is refused before the work, and asking leaves nothing behind."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

import prognosis_dask
from prognosis_dask.errors import StoreError
from prognosis_dask.execution.record import check_folder
from prognosis_dask.publish import expect_no_loss, expect_writable
from tests.mounts import mounted


def test_a_folder_that_is_there_or_could_be_made_is_taken_and_nothing_is_made(tmp_path: Path) -> None:
    expect_writable(tmp_path)
    expect_writable(tmp_path / "new" / "below")
    expect_writable(None)
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_and_a_folder_that_cannot_be_made_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        with pytest.raises(StoreError, match=rf"cannot write in {folder} \(.*\); choose another folder with --out"):
            expect_writable(folder)


def test_a_read_only_folder_is_refused_with_what_the_disk_says(tmp_path: Path) -> None:
    read_only = mounted("-t", "tmpfs", "-o", "ro", "tmpfs", at=tmp_path)
    with read_only, pytest.raises(StoreError, match=r"cannot write in .* \(Read-only file system\)"):
        expect_writable(tmp_path / "run")


def test_a_full_disk_is_said_in_a_line_whoever_writes(tmp_path: Path, refused: Callable[..., str]) -> None:
    with mounted("-t", "tmpfs", "-o", "size=1m", "tmpfs", at=tmp_path):
        assert "No space left on device" in refused("synth", tmp_path / "made", "--patients", 3)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, ""), "No space left on device"),
        (OSError(errno.ENOSPC), "No space left on device"),
        (
            pickle.loads(pickle.dumps(OSError(errno.ENOSPC, "No space left on device", "a"))),
            "No space left on device: 'a'",
        ),
        (TimeoutError(), "TimeoutError"),
        (OSError("\nWith tag (7FE0,0010)\nTraceback"), "With tag (7FE0,0010)"),
    ],
)
def test_an_error_of_the_system_is_never_told_without_words(
    error: OSError, said: str, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("prognosis_dask.report.page.rewrite_report", fail)  # no disk here fails in all of these ways
    assert f"{said}. Finished work is kept; correct this" in refused("report", "run")


def test_features_are_refused_a_folder_before_they_are_computed(shared_data: Path, refused: Callable[..., str]) -> None:
    folder = shared_data / "reported" / "B08_dup_contour" / "in"
    said = refused("features", folder, "-o", "/proc/nowhere/x.csv")
    assert "cannot write in /proc/nowhere" in said
    assert "warning" not in said


@pytest.mark.parametrize("name", ["models", "figures"])
def test_what_somebody_else_keeps_there_is_not_replaced(name: str, tmp_path: Path) -> None:
    expect_no_loss(None)
    expect_no_loss(tmp_path)
    (tmp_path / name).mkdir()
    expect_no_loss(tmp_path)
    (tmp_path / name / "mine.png").write_text("")
    with pytest.raises(StoreError, match=rf"{name} holds something else, which would be lost; choose another folder"):
        expect_no_loss(tmp_path)
    with pytest.raises(StoreError, match="which would be lost"):
        check_folder(tmp_path, "demo")
    with pytest.raises(StoreError, match="which would be lost"):
        prognosis_dask.fit("table.csv", out=tmp_path)
    (tmp_path / "ledger.sqlite").write_text("")  # as a run has one from its first moment on
    expect_no_loss(tmp_path)

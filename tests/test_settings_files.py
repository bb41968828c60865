"""Whatever stands in a job, a specification or a cluster file, it is taken as it stands or refused in one line."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prognosis_dask.config.job import Job, load_job
from prognosis_dask.errors import PrognosisError
from prognosis_dask.execution.cluster import read_cluster
from prognosis_dask.modelling.spec import ModelSpec, load_spec

ROOT = Path(__file__).parents[1]
READERS: dict[str, Callable[[str], object]] = {"jobs": load_job, "jobs/models": load_spec, "cluster": read_cluster}
FILES = [(folder, path) for folder in READERS for path in sorted((ROOT / folder).glob("*.toml"))]
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], include_characters="\n\t"), max_size=6)
#: Values of every type that TOML has, as people and programs write them.
VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(["", "deep", "nowhere.csv", "file:", "untrained:x", "../x", "9", "2020-01-01"])
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)


def keys_of(kind: type) -> list[str]:
    """All keys of a file, and of a section that may stand there several times those of one named ``one``."""
    found = []
    for name, hint in get_type_hints(kind).items():
        of = get_args(hint)[-1] if get_origin(hint) is dict else hint
        inner = [f"{name}.{key}" for key in keys_of(of)] if is_dataclass(of) else [name]
        found += (
            [key.replace(name, f"{name}.one", 1) for key in inner] if of is not hint and is_dataclass(of) else inner
        )
    return found


def toml(value: object) -> str:
    """The value in TOML's notation."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def read_or_refuse(read: Callable[[str], object], path: Path) -> str:
    """What is said where it is refused."""
    try:
        read(str(path))
    except PrognosisError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("read", "kind"), [(load_job, Job), (load_spec, ModelSpec)])
@given(data=st.data())
def test_any_value_of_any_key_is_taken_or_refused_by_name(
    read: Callable[[str], Any], kind: type, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    key, value = data.draw(st.sampled_from(keys_of(kind))), data.draw(VALUES)
    path = tmp_path_factory.getbasetemp() / "some.toml"
    path.write_text(f"{key} = {toml(value)}\n", encoding="utf-8")
    assert tomllib.loads(path.read_text(encoding="utf-8"))
    refused = read_or_refuse(read, path)
    assert len(refused.splitlines()) <= 1
    # by its key, its section, or the file that it names
    assert not refused or any(name and name in refused for name in (*key.split("."), str(value)))


@pytest.mark.parametrize(("folder", "path"), FILES, ids=lambda value: getattr(value, "stem", value))
@given(data=st.data())
def test_no_damaged_file_ends_in_a_traceback(
    folder: str, path: Path, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    damaged = tmp_path_factory.getbasetemp() / "damaged.toml"
    damaged.write_bytes(text)
    assert len(read_or_refuse(READERS[folder], damaged).splitlines()) <= 1

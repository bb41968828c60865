"""Whatever value a key of a job, a specification or a cluster file has, it is taken, or refused in one line."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prognosis_dask.config.job import Job, load_job
from prognosis_dask.errors import PrognosisError
from prognosis_dask.execution.cluster import read_cluster
from prognosis_dask.execution.clusters import SPECS
from prognosis_dask.modelling.spec import ModelSpec, load_spec

#: How a file is read, what it may hold, and its first line.
Kind = tuple[Callable[[str], object], type, str]
KINDS: dict[str, Kind] = {
    "job": (load_job, Job, ""),
    "specification": (load_spec, ModelSpec, ""),
    **{f"cluster {kind}": (read_cluster, spec, f'kind = "{kind}"\n') for kind, spec in SPECS.items()},
}
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


def keys_of(spec: type) -> list[str]:
    """All keys of a file but its kind; of a section that may stand there several times those of one named ``one``."""
    found = []
    for name, hint in get_type_hints(spec).items():
        several = get_origin(hint) is dict and is_dataclass(get_args(hint)[1])
        of, where = (get_args(hint)[1], f"{name}.one") if several else (hint, name)
        found += [f"{where}.{key}" for key in keys_of(of)] if is_dataclass(of) else [where]
    return [key for key in found if key != "kind"]


def toml(value: object) -> str:
    """The value in TOML's notation."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_any_value_of_any_key_is_taken_or_refused_by_name(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    read, spec, begin = KINDS[kind]
    key, value = data.draw(st.sampled_from(keys_of(spec))), data.draw(VALUES)
    path = tmp_path / "some.toml"
    path.write_text(f"{begin}{key} = {toml(value)}\n", encoding="utf-8")
    assert tomllib.loads(path.read_text(encoding="utf-8"))
    refused = ""
    try:
        read(str(path))
    except PrognosisError as error:
        refused = str(error)
    assert len(refused.splitlines()) <= 1
    # by its key, its section, or the file that it names
    assert not refused or any(name and name in refused for name in (*key.split("."), str(value)))

"""Columns that are the outcome in other words stop a fit until somebody has looked; honest predictors do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lifelines.datasets
import numpy as np
import pandas as pd
import pytest
import sklearn.datasets
import sksurv.datasets

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.columns import Encoding
from prognosis_dask.modelling.data.endpoint import Classes, Survival
from prognosis_dask.modelling.data.leakage import find_leaks, immortal_notes, site_notes
from prognosis_dask.modelling.data.reading import find_tables, read_tables
from prognosis_dask.modelling.metrics.competing import subdistribution
from prognosis_dask.modelling.spec import ColumnRule, EndpointRule, ModelSpec

#: lifelines' public cohorts with real predictors: loader, time, event.
COHORTS = [
    ("load_rossi", "week", "arrest"), ("load_gbsg2", "time", "cens"), ("load_larynx", "time", "death"),
    ("load_lung", "time", "status"), ("load_waltons", "T", "E"), ("load_kidney_transplant", "time", "death"),
    ("load_leukemia", "t", "status"), ("load_lymphoma", "Time", "Censor"), ("load_regression_dataset", "T", "E"),
    ("load_dd", "duration", "observed"), ("load_psychiatric_patients", "T", "C"),
]  # fmt: skip
OTHERS = ["load_whas500", "load_gbsg2", "load_veterans_lung_cancer", "load_breast_cancer", "load_aids", "load_cgvhd"]
SURVIVAL = EndpointRule(time="time", event="event")


def leaks(frame: pd.DataFrame, endpoint: Survival | Classes) -> dict[str, str]:
    """Words of a column as levels, numbers as they are."""
    encodings, parts = [], []
    for name in frame:
        column = frame[name]
        if column.dtype.kind in "fiub":
            encodings.append(Encoding(name, "clinical"))
            parts.append(column.to_numpy(dtype=float)[:, None])
            continue
        codes = pd.Categorical(column).codes.astype(float)
        if 2 <= codes.max() + 1 <= 12:
            levels = np.arange(codes.max() + 1)
            encodings.append(Encoding(name, "clinical", levels=tuple(map(str, levels))))
            parts.append(np.where(codes[:, None] < 0, np.nan, codes[:, None] == levels[1:]))
    return {leak.column: leak.why for leak in find_leaks(encodings, np.hstack(parts), endpoint)}


def survival(time: object, event: object) -> Survival:
    return Survival(np.asarray(time, dtype=float), np.asarray(event).astype(bool))


@pytest.mark.parametrize(("loader", "time", "event"), COHORTS)
def test_no_real_predictor_of_lifelines_cohorts_is_stopped(loader: str, time: str, event: str) -> None:
    frame = getattr(lifelines.datasets, loader)()
    frame = frame[frame[time] > 0].reset_index(drop=True)
    assert leaks(frame.drop(columns=[time, event]), survival(frame[time], frame[event])) == {}


@pytest.mark.parametrize("loader", OTHERS)
def test_no_real_predictor_of_scikit_survivals_cohorts_is_stopped(loader: str) -> None:
    frame, outcome = getattr(sksurv.datasets, loader)()
    event, time = outcome.dtype.names
    assert leaks(frame.reset_index(drop=True), survival(outcome[time], outcome[event])) == {}


@pytest.mark.parametrize("loader", ["load_breast_cancer", "load_iris", "load_wine", "load_digits"])
def test_no_real_predictor_of_scikit_learns_classes_is_stopped(loader: str) -> None:
    data = getattr(sklearn.datasets, loader)(as_frame=True)
    endpoint = Classes(data.target.to_numpy(dtype=np.int64), tuple(map(str, data.target_names)))
    assert leaks(data.data, endpoint) == {}  # an AUC of 0.9755 among them


def test_many_random_columns_of_few_cases_are_not_stopped() -> None:
    rng = np.random.default_rng(0)
    for n in (20, 40):
        frame = pd.DataFrame(rng.normal(size=(n, 5000)), columns=[f"f{i}" for i in range(5000)])
        assert leaks(frame, survival(rng.exponential(500, n), np.arange(n) % 3 > 0)) == {}
        assert leaks(frame, Classes(np.arange(n) % 2, ("a", "b"))) == {}


def made(n: int = 120, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    death, lost = rng.exponential(600, n) + 1, rng.exponential(1500, n) + 1
    return np.minimum(death, lost), death <= lost, rng


LEAKS: dict[str, Callable[[np.ndarray, np.ndarray, np.random.Generator], object]] = {
    "time in months": lambda t, e, rng: t / 30.4,
    "time with noise": lambda t, e, rng: t * rng.normal(1, 0.05, len(t)) + 3,
    "time in years, rounded": lambda t, e, rng: np.floor(t / 200),
    "time of the event only": lambda t, e, rng: np.where(e, t, np.nan),
    "time of the censored only": lambda t, e, rng: np.where(e, np.nan, t),
    "time with a few typing errors": lambda t, e, rng: np.where(np.arange(len(t)) % 25 == 0, 9999.0, t),
    "event": lambda t, e, rng: e.astype(float),
    "alive": lambda t, e, rng: 1.0 - e,
    "event with noise": lambda t, e, rng: e + rng.normal(0, 0.1, len(t)),
    "event with a few errors": lambda t, e, rng: np.where(np.arange(len(t)) % 40 == 0, ~e, e).astype(float),
    "two years survived": lambda t, e, rng: (t > 730).astype(float),
    "dead within two years": lambda t, e, rng: (e & (t <= 730)).astype(float),
    "cause of death": lambda t, e, rng: np.where(e, np.where(t % 2 < 1, "cancer", "heart"), "none"),
    "cause of death, else empty": lambda t, e, rng: np.where(e, np.where(t % 2 < 1, "cancer", "heart"), None),
    "coded cause of death": lambda t, e, rng: np.where(e, np.where(t % 2 < 1, 1.0, 3.0), 2.0),
    "group of survival": lambda t, e, rng: np.array(["short", "middle", "long"])[np.digitize(t, [300, 800])],
}


@pytest.mark.parametrize("what", LEAKS)
def test_the_outcome_in_other_words_is_found(what: str) -> None:
    time, event, rng = made()
    column = LEAKS[what](time, event, rng)
    assert list(leaks(pd.DataFrame({"x": rng.normal(size=len(time)), "y": column}), survival(time, event))) == ["y"]


def test_what_is_taken_from_the_outcome_itself_is_not_suspected_with_it() -> None:
    time, event, rng = made()
    frame = pd.DataFrame({"year": 2010.0 + rng.integers(0, 4, len(time)), "months": time / 30.4})
    assert leaks(frame, survival(time, event)).keys() == {"months"}
    frame["age"] = rng.normal(60, 9, len(time))
    frame["age at the end"] = frame["age"] + time / 365.25
    assert leaks(frame, survival(time, event)).keys() == {"months", "age at the end"}


@pytest.mark.parametrize("what", ["label", "label with noise", "other words", "dichotomised volume", "few errors"])
def test_a_class_in_other_words_is_found(what: str) -> None:
    rng = np.random.default_rng(2)
    label = np.arange(90) % 2
    column = {
        "label": label.astype(float),
        "label with noise": label + rng.normal(0, 0.15, 90),
        "other words": np.array(["astrocytoma", "oligo"])[label],
        "dichotomised volume": np.exp(label + rng.random(90)),
        "few errors": np.where(np.arange(90) % 45 == 0, 1 - label, label).astype(float),
    }[what]
    assert list(leaks(pd.DataFrame({"x": rng.normal(size=90), "y": column}), Classes(label, ("no", "yes")))) == ["y"]


@pytest.mark.parametrize("name", ["txtime", "relapse_months", "days_to_progression", "PFI.time", "wait.time"])
def test_a_time_of_another_event_on_the_way_is_no_feature(name: str) -> None:
    """As ``txtime`` and ``rltime`` of the table myeloid, and ``pctime`` of mgus (R's survival)."""
    time, event, rng = made()
    days = np.where(rng.random(len(time)) < 0.6, time * rng.uniform(0.05, 1, len(time)), np.nan)
    since = 365.25 / 12 if "months" in name else 1.0
    before = rng.uniform(0, 60, len(time))  # days from diagnosis to the image, known at the beginning
    frame = pd.DataFrame({name: np.round(days / since, 2), "days_from_diagnosis": before, "age_years": 40 + before})
    assert list(leaks(frame, survival(time + 60, event))) == [name]


def test_a_fit_stops_at_other_names_of_the_outcome_and_prints_the_lines_to_paste(shared_data: Path) -> None:
    sources = find_tables([shared_data / "reported" / "C_h72" / "table.csv"], ModelSpec())
    with pytest.raises(StatisticsError, match="in other words") as stopped:
        read_tables(sources, ModelSpec(endpoint=SURVIVAL))
    said = str(stopped.value)
    assert len(said.splitlines()) == 2
    line = said[said.index("exclude = [") : said.index("]. To keep") + 1]
    names = line.removeprefix("exclude = ")[2:-2].split('", "')
    assert {"fustat", "alive", "last_contact", "futime", "exitus", "2yr_alive"} <= {*names}
    read = read_tables(sources, ModelSpec(endpoint=SURVIVAL, exclude=tuple(names)))
    kept = {*read.table.features} - {"dead_2years"}  # which is 1 for everybody
    assert all(name.startswith(("original_", "wavelet-", "ln_volume")) for name in kept)
    named = {name: ColumnRule() for name in names}
    assert "fustat" in read_tables(sources, ModelSpec(endpoint=SURVIVAL, column=named)).table.features


@pytest.mark.parametrize("cells", [["alive", "dead", "lost"], ["DOD", "NED", "AWD"], ["0", "Deceased", "1"]])
def test_a_column_that_says_who_is_alive_is_no_feature_unless_named(cells: list[str], tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    lines = [f"P{i},{rng.normal()},{rng.integers(9, 900)},{i % 2},{rng.choice(cells)}" for i in range(40)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["PatientID,x,time_days,event,at_2y", *lines]))
    found = read_tables(find_tables([path], ModelSpec()))
    assert found.table.features == ("x",)
    assert any("at_2y (says who is alive)" in note for note in found.notes)
    if "0" not in cells:  # numbers and words in one column are refused
        named = ModelSpec(column={"at_2y": ColumnRule()})
        assert len(read_tables(find_tables([path], named), named).table.features) == 3


def test_what_is_excluded_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,f1,time_days,event\n1,2,3,1\n2,4,5,0\n")
    for pattern, message in (("f2", "exclude names 'f2', and no column"), ("re:(", "no regular expression")):
        with pytest.raises(StatisticsError, match=message):
            read_tables(find_tables([tmp_path / "t.csv"], ModelSpec()), ModelSpec(exclude=(pattern,)))


def test_what_a_run_measured_on_images_is_never_taken_for_the_outcome(tmp_path: Path) -> None:
    time, event, rng = made()
    lines = [f"P{i},{-t},{rng.normal()},{t},{int(e)}" for i, (t, e) in enumerate(zip(time, event, strict=True))]
    (tmp_path / "t.csv").write_text("id,deep_1,deep_2,time_days,event\n" + "\n".join(lines))
    [source] = find_tables([tmp_path / "t.csv"], ModelSpec())
    with pytest.raises(StatisticsError, match=r"'deep_1' has a C-index of 1\.000 by itself"):
        read_tables([source])
    of_a_run = replace(source, families={"deep_1": "deep", "deep_2": "deep"})
    assert read_tables([of_a_run]).table.features == ("deep_1", "deep_2")


def test_a_time_of_delayed_entry_is_no_feature() -> None:
    rng = np.random.default_rng(0)
    age, time = rng.normal(60, 8, 200), rng.uniform(100, 900, 200)
    frame = pd.DataFrame({"entry": time * rng.uniform(0, 0.9, 200), "age at entry": age})
    (said,) = leaks(frame, survival(time, rng.random(200) < 0.6)).items()
    assert said[0] == "entry"
    assert "(--set endpoint.entry=entry models it)" in said[1]


def test_a_site_that_tells_the_outcome_is_told_and_one_of_many_is_not() -> None:
    seen = np.arange(40) % 2 == 0
    endpoint = Survival(np.arange(1.0, 41.0), seen)
    (note,) = site_notes(np.where(seen, "scanner A", "scanner B").tolist(), endpoint)
    assert note.startswith("The site reveals in which cases the event was seen: harmonised features")
    assert site_notes(np.where(seen, "A", "B").tolist(), Classes(seen.astype(np.int64), ("no", "yes")))
    assert not site_notes([f"S{i % 3}" for i in range(40)], endpoint)
    assert not site_notes((), endpoint)


def test_a_treatment_that_only_those_still_followed_could_have_is_told() -> None:
    time, event, rng = made()
    given = (time > np.quantile(time, 0.4)) & (rng.random(len(time)) < 0.6)
    before = rng.random(len(time)) < 0.4
    encodings = [Encoding("chemo", "clinical"), Encoding("sex", "clinical")]
    X = np.column_stack([given, before]).astype(float)
    (note,) = immortal_notes(encodings, X, survival(time, event))
    assert note.startswith(f"chemo: no case with this value ({given.sum()}) was followed for less than ")
    assert "--set 'exclude=[\"chemo\"]' leaves it out" in note


def test_a_treatment_that_all_the_others_ended_before_is_told_without_a_warning_of_numpy() -> None:
    time = np.arange(1.0, 61)
    has = time > 30
    with np.errstate(all="raise"):
        (note,) = immortal_notes([Encoding("chemo", "clinical")], has[:, None] * 1.0, survival(time, time % 3 > 0))
    assert "but 100% of the 30 others were" in note


def competing(n: int = 400) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """Follow-up, why it ended (0 censored, 1 the event, 2 another), and a generator for columns."""
    rng = np.random.default_rng(3)
    ends = rng.exponential([1500, 900, 600], (n, 3)) + 1
    return ends.min(axis=1), ends.argmin(axis=1), rng


def test_notes_where_events_compete_are_of_the_follow_up_that_was_seen_not_of_drawn_times() -> None:
    time, cause, rng = competing()
    given = (time > np.quantile(time, 0.4)) & (rng.random(len(time)) < 0.6)
    endings = [subdistribution(time, cause, seed) for seed in range(3)]
    assert len({tuple(end.time_days) for end in endings}) == 3
    encodings, X = [Encoding("chemo", "clinical")], given[:, None] * 1.0
    told = [immortal_notes(encodings, X, end) for end in endings]
    assert told[0] == told[1] == told[2]
    share = (time[~given] < time[given].min()).mean()
    first = f"less than {time[given].min():.4g} days"
    assert f"{first}, but {share:.0%} of the {(~given).sum()} others were" in told[0][0]

    age = rng.normal(60, 8, len(time))
    frame = pd.DataFrame(
        {"age": age, "age at end": age + time / 365.25, "relapse_days": np.minimum(time * 0.99, time - 0.5)}
    )
    found = [leaks(frame, end) for end in endings]
    assert found[0] == found[1] == found[2]
    assert "less 'age' has a C-index of 1.000" in found[0]["age at end"]
    assert "relapse_days" in found[0]
    entry = pd.DataFrame({"entry": rng.uniform(0, 2, len(time)) * time})  # later than some ends: no delayed entry
    assert [leaks(entry, end) for end in endings] == [{}] * 3


@pytest.mark.parametrize(
    "loader", ["load_whas500", "load_flchain", "load_aids", "load_gbsg2", "load_veterans_lung_cancer"]
)
def test_no_column_known_at_the_beginning_is_told_as_of_a_later_treatment(loader: str) -> None:
    frame, y = getattr(sksurv.datasets, loader)()
    frame = pd.get_dummies(frame.drop(columns="chapter", errors="ignore"), dtype=float)  # flchain's causes of death
    event, time = (y[name] for name in y.dtype.names)
    encodings, followed = [Encoding(name, "clinical") for name in frame], time > 0
    X = frame.to_numpy(float)[followed]
    assert immortal_notes(encodings, X, survival(time[followed], event[followed])) == []

"""A table by itself, with no configuration: what is unambiguous is taken and said, the rest is asked for."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import lifelines
import numpy as np
import pandas as pd
import pytest
import sksurv
from sksurv.io import loadarff

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.reading import ReadTable, find_tables, read_tables
from prognosis_dask.modelling.spec import default_horizons, load_spec
from prognosis_dask.workflows.models import fit

LIFELINES = Path(lifelines.__file__).parent / "datasets"
SKSURV = Path(sksurv.__file__).parent / "datasets" / "data"


def read(path: Path, *settings: str) -> ReadTable:
    spec = load_spec(None, settings)
    return read_tables(find_tables([path], spec), spec)


def published(name: str, folder: Path) -> Path:
    """The table as its package delivers it; an ARFF file as pandas writes it."""
    target = folder / f"{name}.csv"
    if (LIFELINES / f"{name}.csv").is_file():
        shutil.copy(LIFELINES / f"{name}.csv", target)
    else:
        loadarff(os.fspath(SKSURV / f"{name}.arff")).to_csv(target, index=False)
    return target


@pytest.mark.parametrize(
    ("name", "n", "events", "median_days"),
    [  # cases, events and median follow-up as the packages document or as pandas reads them
        ("rossi", 432, 114, 52 * 7),
        ("gbsg2", 686, 299, 1084),
        ("lung", 228, 165, 255.5),
        ("veteran", 137, 128, 80),
        ("whas500", 500, 215, 631.5),
        ("actg320", 1151, 96, 257),
        ("larynx", 90, 50, 4 * 365.25),
        ("flchain", 7871, 2166, 4303),
    ],
)
def test_published_tables_are_read_as_they_are(
    name: str, n: int, events: int, median_days: float, tmp_path: Path
) -> None:
    found = read(published(name, tmp_path))
    assert (len(found.table.case_ids), int(found.table.event.sum())) == (n, events)
    assert float(np.median(found.table.time_days)) == pytest.approx(median_days)
    told = " ".join(found.notes)
    assert "each row is one, and has its number" in told
    assert "The endpoint is" in told
    later = {"time_d", "censor_d", "chapter", "los", "dstat", "inst"}
    assert later.isdisjoint(found.table.features)


@pytest.mark.parametrize(
    ("name", "horizons"),
    [
        ("rossi", (91, 183, 274)),
        ("actg320", (91, 183, 274)),
        ("lung", (365, 730)),
        ("larynx", (365, 730, 1095, 1825)),
        ("flchain", (365, 730, 1095, 1825)),
    ],
)
def test_horizons_follow_from_the_follow_up(name: str, horizons: tuple[float, ...], tmp_path: Path) -> None:
    assert default_horizons(read(published(name, tmp_path)).table.survival) == horizons


def test_codes_one_and_two_are_read_where_documentation_says_what_they_mean_and_asked_for_elsewhere(
    tmp_path: Path,
) -> None:
    lung = pd.read_csv(LIFELINES / "lung.csv")
    expected = lung["status"].to_numpy() == 1
    as_in_r = lung.assign(status=lung["status"] + 1)
    as_in_r.to_csv(tmp_path / "lung.csv", index=False)
    np.testing.assert_array_equal(read(tmp_path / "lung.csv").table.event, expected)
    unknown = as_in_r.rename(columns={"ph.ecog": "ecog", "pat.karno": "karno"})
    unknown.to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(StatisticsError, match=r"status holds '1' and '2'") as refused:
        read(tmp_path / "other.csv")
    setting = str(refused.value).split("--set '")[1].split("'")[0]
    np.testing.assert_array_equal(read(tmp_path / "other.csv", setting).table.event, expected)


def hospital(folder: Path, n: int = 120, **more: object) -> Path:
    """A table as a hospital writes it: no usual ID, a heading twice, rare words, and whatever is added."""
    rng = np.random.default_rng(3)
    histology = rng.choice(["adeno", "squamous"], n).tolist()
    for at, word in enumerate(["sarcoid", "carcinosarcoma", "lymphoepithelioma", "nos"] * 2):
        histology[at * 3] = word
    columns: dict[str, object] = {
        "MRN": [f"{70000 + 13 * i}" for i in range(n)],
        "Age": rng.integers(40, 85, n),
        "Hb": rng.normal(13, 1, n).round(1),
        "Hb ": rng.normal(12, 1, n).round(1),
        "Histology": histology,
        "OS": rng.integers(1, 60, n),
        "status": np.where(rng.random(n) < 0.6, "dead", "alive"),
        **more,
    }
    table = pd.DataFrame(columns)
    table.to_csv(folder / "h.csv", index=False)
    return folder / "h.csv"


def test_a_hospitals_table_gives_a_first_result_and_says_what_was_taken(tmp_path: Path) -> None:
    found = read(hospital(tmp_path))
    told = " ".join(found.notes)
    assert found.table.patient_ids[1] == "70013"
    assert {"Hb", "Hb.1", "Histology=other"} < set(found.table.features)
    assert "Histology=sarcoid" not in found.table.features
    for said in (
        "MRN was taken as the patients' ID",
        "numbered from the second on: Hb.1",
        "4 words in fewer than 5 rows each became 'other'",
        "OS was taken in days",
        "The endpoint is OS and status",
    ):
        assert said in told
    grouped = found.table.X[:, found.table.features.index("Histology=other")]
    assert grouped.sum() == 8
    again = read_tables(find_tables([tmp_path / "h.csv"], load_spec(None)), load_spec(None), found.encodings)
    np.testing.assert_array_equal(again.table.X, found.table.X)


@pytest.mark.parametrize("heading", ["eid", "USUBJID", "Pat.-Nr.", "participant_id", "case_submitter_id", "Pseudonym"])
def test_registries_own_headings_of_patients_are_known(heading: str, tmp_path: Path) -> None:
    table = pd.read_csv(hospital(tmp_path)).rename(columns={"MRN": heading})
    table.to_csv(tmp_path / "h.csv", index=False)
    found = read(tmp_path / "h.csv")
    assert found.table.patient_ids[1] == "70013"
    assert f"{heading} was taken as the patients' ID" in " ".join(found.notes)


def test_of_two_columns_that_name_the_same_patients_either_will_do_and_others_are_refused(tmp_path: Path) -> None:
    ids = [f"S-{number}" for number in range(120)]
    path = hospital(tmp_path, study_id=ids)
    found = read(path)
    assert found.table.patient_ids[1] == "70013"
    assert not any("study_id" in name for name in found.table.features)
    hospital(tmp_path, study_id=[*ids[1:], ids[1]])
    with pytest.raises(StatisticsError, match="no column of patients' IDs"):
        read(path)


def test_a_stray_word_is_missing_only_where_it_is_named_and_the_line_to_paste_works(tmp_path: Path) -> None:
    cells = [str(i) for i in range(120)]
    cells[7] = "haemolysed"
    path = hospital(tmp_path, **{"LDH (U/l)": cells})
    with pytest.raises(StatisticsError, match="'LDH \\(U/l\\)' holds 'haemolysed' in data row 8") as refused:
        read(path)
    setting = str(refused.value).split("--set '")[1].split("'")[0]
    found = read(path, setting)
    column = found.table.X[:, found.table.features.index("LDH (U/l)")]
    assert np.flatnonzero(np.isnan(column)).tolist() == [7]


def test_years_by_the_calendar_are_no_follow_up(tmp_path: Path) -> None:
    """R's transplant and rotterdam have a column ``year`` beside their times."""
    found = read(hospital(tmp_path, year=[1990 + i % 9 for i in range(120)]))
    assert "year" in found.table.features


def test_two_possible_endpoints_are_asked_for_with_lines_that_work(tmp_path: Path) -> None:
    path = hospital(tmp_path, **{"PFS time": np.arange(1, 121), "PFS event": [0, 1] * 60, "OS event": [1, 0, 0] * 40})
    with pytest.raises(StatisticsError, match="which one is meant") as refused:
        read(path)
    lines = [line.strip() for line in str(refused.value).splitlines()[1:]]
    assert lines[0] == "--set endpoint.time=OS --set 'endpoint.event=\"OS event\"'"
    settings = [part.strip().strip("'") for part in lines[1].split("--set")[1:]]
    assert int(read(path, *settings, "exclude=['OS','OS event','status']").table.event.sum()) == 60


def test_a_patient_with_two_rows_is_no_two_patients(tmp_path: Path) -> None:
    path = hospital(tmp_path, MRN=[f"{i // 2}" for i in range(120)])
    with pytest.raises(StatisticsError, match="patient '0' stands in data rows 1 and 2"):
        read(path)


def test_few_columns_with_names_are_clinical_genes_molecular_and_numbered_ones_image_features(tmp_path: Path) -> None:
    found = read(hospital(tmp_path, TP53=[0, 1] * 60, ENSG00000141510=np.arange(120)))
    family = dict(zip(found.table.features, found.table.families, strict=True))
    assert (family["Hb"], family["TP53"], family["ENSG00000141510"]) == ("clinical", "molecular", "molecular")
    images = {f"f{i}": np.arange(120) % (i + 3) for i in range(12)}
    found = read(hospital(tmp_path, **images))
    assert dict(zip(found.table.features, found.table.families, strict=True))["f3"] == "features"
    found = read(tmp_path / "h.csv", 'column.f3.family="clinical"')
    assert dict(zip(found.table.features, found.table.families, strict=True))["f3"] == "clinical"


def followed(folder: Path, **columns: object) -> Path:
    """Forty patients, 30 with the event, of whom the columns say it."""
    table = {"PatientID": [f"{i:05d}" for i in range(1, 41)], "age": np.arange(40) * 7 % 31 + 50, **columns}
    pd.DataFrame(table).to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


DAYS = np.arange(40) * 37 % 101 + 20
SEEN = np.arange(40) % 4 > 0


@pytest.mark.parametrize(
    ("columns", "refusal"),
    [
        ({"time": DAYS, "event": np.where(SEEN, "1", "")}, "event is empty in 10 rows with a time"),
        ({"time": DAYS, "death": np.where(SEEN, "DOD", "NED")}, r'event_codes={ "dod" = \?, "ned" = \? }'),
        (
            {"time": [f"{day} d" for day in DAYS], "event": SEEN},
            "time is a time by its heading, and holds '20 d' in data",
        ),
        ({"time": DAYS, "death": [f"2020-01-{i % 28 + 1:02d}" for i in range(40)]}, "holds 28 different values"),
        (
            {"diagnosed": ["2020-01-01"] * 40, "last seen": ["2021-02-03"] * 40},
            "diagnosed, last seen hold dates: write",
        ),
        (
            {"days_to_death": np.where(SEEN, DAYS, np.nan), "vital_status": np.where(SEEN, "Dead", "Alive")},
            "days_to_death is empty or 0 in all 10 rows in which vital_status says that the event was not seen",
        ),
        ({"time": np.where(SEEN, DAYS, 0), "event": SEEN}, "time is empty or 0 in all 10 rows in which event says"),
        (
            {"time": DAYS, "event": SEEN, "age at the end": np.arange(40) * 7 % 31 + 50 + DAYS / 365.25},
            "'age at the end' less 'age' has a C-index of 1.000",
        ),
        ({"PatientID": [*range(39), "Mean"], "time": DAYS, "event": SEEN}, "data row 40 has 'Mean' for a patient"),
        ({"PatientID": [*range(39), "Total (n=39)"], "time": DAYS, "event": SEEN}, "data row 40 has 'Total"),
        ({"PatientID": [*range(39), "Gesamtergebnis"], "time": DAYS, "event": SEEN}, "data row 40 has 'Gesamt"),
    ],
)
def test_what_would_lose_or_tell_the_outcome_is_refused_with_what_to_do(
    columns: dict[str, object], refusal: str, tmp_path: Path
) -> None:
    with pytest.raises(StatisticsError, match=refusal):
        read(followed(tmp_path, **columns))


def test_an_empty_event_is_censored_where_the_line_to_paste_says_so(tmp_path: Path) -> None:
    path = followed(tmp_path, time=DAYS, event=np.where(SEEN, "1", ""))
    with pytest.raises(StatisticsError) as refused:
        read(path)
    found = read(path, str(refused.value).split("--set '")[1].split("'")[0])
    np.testing.assert_array_equal(found.table.event, SEEN)


def test_one_number_far_from_all_others_is_told_of_times_and_of_clinical_columns(tmp_path: Path) -> None:
    hb = np.where(np.arange(40) == 7, 13000.0, 12 + np.arange(40) % 5)
    found = read(followed(tmp_path, time=np.where(np.arange(40) == 2, 41235, DAYS), event=SEEN, Hb=hb))
    told = " ".join(found.notes)
    assert "Hb is 13000 in data row 8, far from the others (12 to 16)" in told
    assert "time is 41235 in data row 3, far from the others" in told


def test_cbioportals_lines_above_the_headings_are_passed_over(tmp_path: Path) -> None:
    rows = [f"P{i}\t{50 + i % 9}\t{DAYS[i]}\t{'1:DECEASED' if SEEN[i] else '0:LIVING'}" for i in range(40)]
    above = [
        "#Patient Identifier\tAge\tOverall Survival (Months)\tStatus",
        "#STRING\tNUMBER\tNUMBER\tSTRING",
        "#1\t1\t1\t1",
    ]
    (tmp_path / "c.txt").write_text("\n".join([*above, "PATIENT_ID\tAGE\tOS_MONTHS\tOS_STATUS", *rows]))
    found = read(tmp_path / "c.txt")
    np.testing.assert_array_equal(found.table.event, SEEN)
    assert found.table.features == ("AGE",)


def test_german_and_french_tables_say_time_event_and_unit_in_their_own_words(tmp_path: Path) -> None:
    german, french = ("verstorben", "ja", "nein"), ("Décès", "oui", "non")
    seen = {"Überlebenszeit (Monate)": german, "Überlebenszeit in Monaten": german, "Survie (mois)": french}
    for time, (event, yes, no) in seen.items():
        found = read(followed(tmp_path, **{time: DAYS, event: np.where(SEEN, yes, no)}))
        np.testing.assert_array_equal(found.table.event, SEEN)
        np.testing.assert_allclose(found.table.time_days, DAYS * 365.25 / 12)


def test_an_age_as_dicom_writes_it_is_a_number_and_one_numbered_column_no_row_of_image_features(tmp_path: Path) -> None:
    found = read(
        followed(
            tmp_path, time=DAYS, event=SEEN, age=[f"{age:03d}Y" for age in range(40, 80)], t5=[None, *np.arange(39) % 9]
        )
    )
    assert found.table.families == ("clinical", "clinical")
    np.testing.assert_array_equal(found.table.X[:, found.table.features.index("age")], range(40, 80))
    assert len(found.table.case_ids) == 40


def test_a_table_by_itself_ends_in_a_model_and_its_figure_is_printed(tmp_path: Path) -> None:
    lines: list[str] = []
    few = ("validation.repeats=1", "validation.folds=3", "validation.halves=0")
    found = fit(published("larynx", tmp_path), out=tmp_path / "out", overrides=few, say=lines.append)
    told = "\n".join(lines)
    assert "Features by kind: clinical (4): age, Stage_II, Stage_III, Stage_IV." in told
    assert f"clinical: C-index of held-out cases {found.summary['c_index_cv']:.3f} (95 % interval" in told
    assert (tmp_path / "out" / "report.html").is_file()

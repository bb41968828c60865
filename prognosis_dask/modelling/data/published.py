"""Tables that statistics packages publish: what their headings do not say, from their documentation.

A heading such as ``cens`` may mean either thing, 1 and 2 may too, and a week is a time of follow-up in one table only.
For the tables that everybody tries first the documentation settles it, as a collection's preset does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from prognosis_dask.cohort.clinical import key
from prognosis_dask.cohort.endpoints import Unit, plain_code


@dataclass(frozen=True)
class Published:
    """A published table.

    Attributes
    ----------
    name
        The table and where it is from.
    marks
        Headings that it is known by, besides time and event; letters and digits count only.
    time, event
        The columns of the endpoint.
    unit
        Of the time.
    codes
        What the event's codes mean, where they are not 1 for the event and 0 for censored.
    exclude
        Columns that are no features known at the beginning, with the reason.
    """

    name: str
    marks: tuple[str, ...]
    time: str
    event: str
    unit: Unit = "days"
    codes: Mapping[str, int] = field(default_factory=dict)
    exclude: Mapping[str, str] = field(default_factory=dict)


_OBSERVED = {"1": 1, "0": 0}
_R = {"1": 0, "2": 1}
_LATER = "known only later"

PUBLISHED = (
    Published("rossi, recidivism (R's carData, lifelines)", ("fin", "wexp", "paro", "prio"), "week", "arrest", "weeks",
              exclude={f"emp{week}": _LATER for week in range(1, 53)}),
    Published("GBSG2, breast cancer (R's TH.data, scikit-survival)", ("horTh", "menostat", "tgrade", "pnodes"),
              "time", "cens", codes=_OBSERVED),
    Published("lung, NCCTG (R's survival)", ("ph.ecog", "ph.karno", "pat.karno", "meal.cal"), "time", "status",
              codes=_R, exclude={"inst": "a hospital's number"}),
    Published("veteran, lung cancer (R's survival)", ("trt", "celltype", "karno", "diagtime"), "time", "status"),
    Published("veteran, lung cancer (scikit-survival)", ("Celltype", "Karnofsky_score", "Prior_therapy"),
              "Survival_in_days", "Status"),
    Published("whas500, myocardial infarction (Hosmer, Lemeshow and May; scikit-survival)",
              ("sysbp", "chf", "miord", "mitype"), "lenfol", "fstat", exclude={"los": _LATER, "dstat": _LATER}),
    Published("ACTG320, AIDS (Hosmer, Lemeshow and May; scikit-survival)", ("cd4", "karnof", "priorzdv", "ivdrug"),
              "time", "censor", codes=_OBSERVED,
              exclude={"time_d": "the time of death", "censor_d": "death"}),
    Published("larynx cancer (Klein and Moeschberger; lifelines)", ("Stage_II", "Stage_III", "Stage_IV"),
              "time", "death", "years"),
    Published("larynx cancer (R's KMsurv)", ("stage", "age", "diagyr"), "time", "delta", "years"),
    Published("flchain, free light chains (R's survival, scikit-survival)", ("kappa", "lambda", "flc.grp", "mgus"),
              "futime", "death", exclude={"chapter": "the cause of death"}),
)  # fmt: skip


def published_table(headings: Collection[str]) -> Published | None:
    """The published table with these headings; None where there is none, or more than one."""
    held = set(map(key, headings))
    found = [one for one in PUBLISHED if held >= set(map(key, (*one.marks, one.time, one.event)))]
    return found[0] if len(found) == 1 else None


def codes_for(table: Published, cells: Collection[str]) -> Mapping[str, int]:
    """What the event's codes mean: the documentation's where it has all of them, else {}.

    >>> lung = published_table(["time", "status", "ph.ecog", "ph.karno", "pat.karno", "meal.cal"])
    >>> codes_for(lung, ["1", "2"]), codes_for(lung, ["0", "1"])
    ({'1': 0, '2': 1}, {})
    """
    held = {plain_code(cell) for cell in cells if cell}
    return table.codes if held <= table.codes.keys() else {}

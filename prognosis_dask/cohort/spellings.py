"""The clinical table as the images and the models spell it: patients' IDs, and the values of a column."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from prognosis_dask.cohort.case import Case
from prognosis_dask.cohort.clinical import ClinicalTable, match_without_zeros, patient_key, same_patient
from prognosis_dask.errors import count


def spelt_alike(table: ClinicalTable, patients: Iterable[str], id_part: str) -> ClinicalTable:
    """The table with patients under the images' keys if they differ in leading zeros, or in what is no ``id_part``."""
    known = set(patients)
    other, why = match_without_zeros(table.rows, known), "in leading zeros"
    if not other and id_part:
        other, why = _alike_in_part(table.rows.keys() - known, known - table.rows.keys(), id_part), "in spelling"
    if not other:
        return table
    one = next(iter(other))
    note = f"{count(len(other), 'patient')} joined although they differ {why}: {same_patient(one, other[one])}."
    rows = {other.get(key, key): row for key, row in table.rows.items()}
    return replace(table, rows=rows, notes=(*table.notes, note))


def no_row(cases: Sequence[Case], table: ClinicalTable) -> str:
    """Why a case has no row; if no case has one, with examples of both kinds of patient ID."""
    reason = "the clinical table has no row for this patient"
    if not table.rows or any(patient_key(case.patient_id) in table.rows for case in cases):
        return reason
    named = next(iter(table.rows.values())).patient_id
    return (
        f"{reason}, nor for any other with images; its first is {named!r}: "
        "are its IDs written like those of the images? cohort.id_column names another column"
    )


def _alike_in_part(keys: Iterable[str], known: Iterable[str], id_part: str) -> dict[str, str]:
    """For each key the known one with the same part, where no other of either has it."""

    def by_part(names: Iterable[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for name in sorted(names):
            if match := re.fullmatch(id_part, name):
                found["".join(match.groups())].append(name)
        return found

    wanted, present = by_part(keys), by_part(known)
    return {
        names[0]: present[part][0] for part, names in wanted.items() if len(names) == len(present.get(part, ())) == 1
    }


def leveled(table: ClinicalTable, levels: Mapping[str, Mapping[str, str]]) -> ClinicalTable:
    """The table with the spellings of a column's values read as the collection says; counted in a note."""
    notes = list(table.notes)
    rows = dict(table.rows)
    for column, patterns in levels.items():
        seen: dict[str, set[str]] = defaultdict(set)
        for key, row in rows.items():
            text = row.covariates.get(column, "")
            value = next((to for pattern, to in patterns.items() if re.fullmatch(pattern, text.strip(), re.I)), text)
            if text:
                seen[value].add(text)
            rows[key] = replace(row, covariates={**row.covariates, column: value}) if text else row
        told = "; ".join(f"{value}: {', '.join(map(repr, sorted(texts)))}" for value, texts in sorted(seen.items()))
        if any(texts != {value} for value, texts in seen.items()):
            notes.append(f"Spellings of {column} were read as {len(seen)} values ({told}).")
    return replace(table, rows=rows, notes=tuple(notes))

"""Select the structures of an image that become cases: rules over names, and a policy for several matches."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from prognosis_dask.cohort.headers import FileStamp, Structure
from prognosis_dask.cohort.names import composed
from prognosis_dask.errors import CaseError, Code, JobError, Problem, count

#: ``one``: exactly one structure, by the first rule that matches any. ``first``: the same, but of several that this
#: rule matches the first is taken. ``merge``: all that any rule matches, as one. ``each``: the same, a case each.
Policy = Literal["one", "first", "merge", "each"]

#: Preference if one structure comes in several formats: TCIA often adds a SEG derived from the RTSTRUCT.
_PREFERENCE = ("RTSTRUCT", "SEG", "label map")


@dataclass(frozen=True)
class Candidate:
    """A structure that could be a case of one image, and the mask file that holds it.

    ``uid`` identifies the mask wherever it lies: SOPInstanceUID, or the name of file and folder.
    ``named``: the structure carries a name of its own, which rules apply to. A label map called ``mask.nii.gz`` does
    not. ``labels`` is what :class:`~prognosis_dask.cohort.case.Case` calls labels. ``names_from``: the file beside the
    mask that tells the names of its labels, if any.
    """

    mask: FileStamp
    uid: str
    kind: str
    structure: Structure
    labels: tuple[int, ...]
    named: bool = True
    covariates: dict[str, str] = field(default_factory=dict, hash=False)
    names_from: FileStamp | None = None


@dataclass(frozen=True)
class Selection:
    """What becomes one case: a mask file, the labels in it and the name to go by."""

    mask: FileStamp
    uid: str
    kind: str
    name: str
    labels: tuple[int, ...]
    covariates: dict[str, str] = field(default_factory=dict, hash=False)
    names_from: FileStamp | None = None


def select(
    candidates: Sequence[Candidate], rules: Sequence[str], policy: Policy
) -> tuple[list[Selection], list[Problem]]:
    """Apply the rules to the structures of one image.

    Parameters
    ----------
    candidates
        All structures, of all masks, that belong to the image.
    rules
        Names, in order of preference, compared as a whole and without case; ``re:PATTERN`` is a regular expression
        that must match the whole name, without case too. No rule: every structure.
    policy
        See :data:`Policy`.

    Returns
    -------
    The selections, and the problems of selected structures without content or with a fault; where ``each``
    finds one name several times, or another policy passes over another format of the structure, a warning too.

    Raises
    ------
    CaseError
        ``ROI_NOT_FOUND`` with the names seen, ``ROI_AMBIGUOUS``, ``MASK_UNREADABLE`` when the one that is meant is
        defective, or ``ROI_WITHOUT_CONTOUR`` or ``MASK_EMPTY`` when all that match are empty.
    """
    matched = [(*hit, candidate) for candidate in candidates if (hit := _match(candidate, rules)) is not None]
    if rules and any(candidate.named for _, _, candidate in matched):
        # a file without a name, which passes any rule, yields to others; rows of a table, which name a label, do not
        matched = [found for found in matched if found[2].named or found[2].labels]
    if not matched:
        seen = ", ".join(sorted({repr(name) for c in candidates for name in c.structure.names})) or "none"
        raise CaseError(Code.ROI_NOT_FOUND, f"no ROI called {' or '.join(map(repr, rules))}; seen: {seen}")
    full = [found for found in matched if not found[2].structure.empty and not found[2].structure.fault]
    problems = [_useless(name, candidate) for _, name, candidate in matched if _is_useless(candidate)]
    if not full:
        raise CaseError(problems[0].code, problems[0].reason, where=problems[0].where)
    if policy == "each":
        return [_selection([(name, candidate)]) for _, name, candidate in full], [*problems, *_repeated(full)]
    _expect_sound(matched, policy, min(rank for rank, _, _ in full))
    if policy == "merge":
        found = [(name, candidate) for _, name, candidate in full]
        return [_merged(found)], [*problems, *_passed_over(found)]
    best = min(rank for rank, _, _ in full)
    found = [(name, candidate) for rank, name, candidate in full if rank == best]
    hits = _original(found)
    if len(hits) > 1 and policy == "one":
        listed = "; ".join(f"{name!r} in {candidate.mask.path}" for name, candidate in hits)
        raise CaseError(Code.ROI_AMBIGUOUS, f"{len(hits)} match: {listed}; set roi_policy, or a narrower roi")
    return [_selection(hits[:1])], [*problems, *_passed_over(found)]


def _is_useless(candidate: Candidate) -> bool:
    return candidate.structure.empty or candidate.structure.fault is not None


def _expect_sound(matched: Sequence[tuple[int, str, Candidate]], policy: Policy, best: int) -> None:
    """A defective structure is neither replaced by another nor left out of a union."""
    for rank, name, candidate in matched:
        if candidate.structure.fault and (policy == "merge" or rank <= best):
            problem = _useless(name, candidate)
            raise CaseError(problem.code, problem.reason, where=problem.where)


def _repeated(full: Sequence[tuple[int, str, Candidate]]) -> list[Problem]:
    """A warning if several masks hold a structure of one name: one lesion may become several cases."""
    files: dict[str, list[str]] = defaultdict(list)
    called: dict[str, str] = {}
    for _, name, candidate in full:
        if candidate.named:
            key = " ".join(name.split()).casefold()
            called.setdefault(key, name)
            files[key].append(candidate.mask.path)
    return [
        Problem(
            Code.ROI_AMBIGUOUS,
            f"{count(len(paths), 'structure')} of this image are called {called[key]!r}: each became a case, though it "
            f"may be one lesion; leave a file out, or name one by roi ({', '.join(sorted(set(paths)))})",
            where=min(paths),
            severity="warning",
        )
        for key, paths in files.items()
        if len(paths) > 1
    ]


def check_rules(rules: Sequence[str]) -> None:
    """Raise JobError for a rule that is not a regular expression."""
    for rule in rules:
        if rule.startswith("re:"):
            try:
                re.compile(rule[3:])
            except re.error as error:
                raise JobError(f"cohort.roi: {rule!r} is not a regular expression: {error}") from error


def _match(candidate: Candidate, rules: Sequence[str]) -> tuple[int, str] | None:
    """Rank of the first rule that matches, and the name that it matches."""
    names = candidate.structure.names
    if not rules or not candidate.named:
        return 0, names[0]
    for rank, rule in enumerate(rules):
        for name in names:
            if matches(rule, name):
                return rank, name
    return None


def matches(rule: str, name: str) -> bool:
    """Whether a rule matches a name.

    >>> matches("gtv-1", "GTV-1"), matches("GTV", "GTV-1"), matches("re:gtv.*", "GTV-1")
    (True, False, True)
    >>> matches("Tumör", "Tumo\N{COMBINING DIAERESIS}r")  # of two spellings in Unicode
    True
    """
    rule, name = composed(rule), composed(name)
    if rule.startswith("re:"):
        return re.fullmatch(rule[3:], name.strip(), re.IGNORECASE) is not None
    return " ".join(rule.split()).casefold() == " ".join(name.split()).casefold()


def _useless(name: str, candidate: Candidate) -> Problem:
    """Why a selected structure cannot be used."""
    fault = candidate.structure.fault
    if fault:
        return Problem(fault.code, f"{name!r}: {fault.reason}", where=candidate.mask.path)
    if candidate.kind == "SEG":
        return Problem(Code.MASK_EMPTY, f"the segment {name!r} has no frame", where=candidate.mask.path)
    if candidate.kind == "label map":
        return Problem(Code.MASK_EMPTY, f"the segment {name!r} has no voxel", where=candidate.mask.path)
    reason = (
        f"{name!r} (ROI {candidate.structure.number}) is named in the mask, but has no contour that encloses an area"
    )
    return Problem(Code.ROI_WITHOUT_CONTOUR, reason, where=candidate.mask.path)


def _original(found: list[tuple[str, Candidate]]) -> list[tuple[str, Candidate]]:
    kinds = {candidate.kind for _, candidate in found}
    best = next(kind for kind in _PREFERENCE if kind in kinds)
    return [(name, candidate) for name, candidate in found if candidate.kind == best]


def _passed_over(found: list[tuple[str, Candidate]]) -> list[Problem]:
    """A warning if the structure lies in another format as well, which is not compared."""
    (name, used), *_ = kept = _original(found)
    others = sorted({(one.kind, one.mask.path) for _, one in found} - {(one.kind, one.mask.path) for _, one in kept})
    if not others:
        return []
    listed = ", ".join(f"the {kind} {path}" for kind, path in others)
    reason = (
        f"{name!r} is in the {used.kind} {used.mask.path}, which is used, and in {listed}: they were not compared; "
        "leave out the file that is not meant"
    )
    return [Problem(Code.ROI_AMBIGUOUS, reason, where=used.mask.path, severity="warning")]


def _merged(found: list[tuple[str, Candidate]]) -> Selection:
    hits = _original(found)
    files = list(dict.fromkeys(candidate.mask.path for _, candidate in hits))
    if len(files) > 1:
        raise CaseError(
            Code.ROI_AMBIGUOUS, f"ROIs can be merged within one mask file only; they are in {', '.join(files)}"
        )
    return _selection(hits)


def _selection(found: Iterable[tuple[str, Candidate]]) -> Selection:
    hits = list(found)
    first = hits[0][1]
    name = "+".join(dict.fromkeys(name for name, _ in hits))
    labels = tuple(sorted({label for _, candidate in hits for label in candidate.labels}))
    return Selection(first.mask, first.uid, first.kind, name, labels, first.covariates, first.names_from)

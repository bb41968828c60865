"""What is told of columns whose cells may not be what they look like: codes, dates, shares, what counts the follow-up.

Each note was held against the public tables of R's survival, MASS and boot, and of lifelines.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray
from prognosis_dask.cohort import endpoints
from prognosis_dask.cohort.clinical import key
from prognosis_dask.errors import count
from prognosis_dask.modelling.data.columns import MOST_LEVELS, OTHER, Encoding, SourceColumn, level_key, stage_rank
from prognosis_dask.modelling.data.endpoint import Endpoint, Survival
from prognosis_dask.modelling.data.families import is_measured

#: In years.
_OLDEST = 122
#: An age that stands for "not known" where few are near it.
_NOBODY = 99.0
#: Headings of kinds, such as a histology's: their numbers are codes, of which 4 is not twice 2.
_KINDS = re.compile(
    r"(tumou?r)?(histolog|histopath|morpholog|race|ethnic|rasse|lokalis|localis|marital|insurance)\w*|histo|icdo?\w*|"
    r"(tumou?r|primary|cancer|disease|anatomic)?(sub)?(site|location)|lage|centre|center|zentrum|klinik|clinic|hospital|inst|"
    r"institut(e|ion)|scanner|vendor|manufacturer|country|region|city|ward|team|plz|zip(code)?|post(al)?code|arm|rx|trt|treatment|therapy|therapie|traitement|regimen|"
    r"cluster(id|no|nr)?|study(site|centre|center)|(reader|rater|observer|operator|surgeon|physician|doctor|machine|batch)(id|no|nr|code)?|"
    r"\w*code\d?"
)
#: Headings of kinds, or of steps where there are more.
_GROUPS, _MOST_GROUPS = re.compile(r"\w*(type|kind|category|group|grp|typ|gruppe)"), 6
#: Among them those whose codes may have an order.
_ORDERED = re.compile(r".*(age|risk|stage|grade|grad|dose|size|score|ecog|tnm|alter|risiko|prognos|income|bmi).*")
#: Headings of what was made for the analysis: parts of a split, weights. A body's weight is none of them.
_DESIGN = re.compile(
    r"(cv)?folds?|split|partition|(is)?train(ing)?(set)?|testset|holdout|(case|sampl\w*|survey|ps|ip\w?)?weights|ip[ct]?w|iptw"
)
#: Days since 1900 of 1980 and of 2035, as Excel has them.
_FIRST_SERIAL, _LAST_SERIAL = 29221, 49310
#: The least number of a record; from this share of whole hundreds on numbers are measured.
_FIRST_RECORD, _MOST_ROUND = 10_000, 0.1
#: Headings of what is measured or counted.
_MEASURE = re.compile(
    r".*(vol|voxel|count|plt|platelet|thromb|leuk|lymph|neutro|cells|load|dose|area|size|amount|sum|total|mm[23³²]?|reads|"
    r"income|cost|titer|titre|rna|ferritin|bnp|activity|bq).*"
)
_MONTHS = "jan|feb|m[aä]r|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz]"
#: What Excel makes of 1-2 or 3/4.
_EXCELS_DATE = re.compile(rf"\d{{1,2}}[-. ]+({_MONTHS})[a-zä]*\.?|({_MONTHS})[a-zä]*[-. ]+\d{{1,2}}", re.IGNORECASE)
#: Fewer cases say nothing; correlations with the follow-up from which on a column is told, among those with the event
#: and among the censored.
_FEWEST, _GROWS = 20, 0.5
#: Times fewer than which say nothing of their distribution, and so many as are looked at.
_FEWEST_TIMES, _MOST_TIMES = 60, 300
#: The days of a month on the scale of logarithms; the gain of likelihood and the share from which on units are mixed.
_MONTH, _CERTAIN, _LEAST_SHARE = float(np.log(30.4375)), 20.0, 0.05
#: With a value all have the event: told where of the others no more have it than this, and chance does so this rarely.
_MOST_OTHERS, _BY_CHANCE = 0.6, 1e-9
#: Words that say the same, one group after the other.
_SAME = (
    ("yes", "y", "ja", "j", "oui", "true", "1"),
    ("no", "n", "nein", "non", "false", "0"),
    ("male", "m", "man", "männlich", "homme", "h"),
    ("female", "f", "woman", "w", "weiblich", "femme"),
    ("positive", "pos", "pos.", "positiv", "+"),
    ("negative", "neg", "neg.", "negativ", "-"),
    ("low", "low grade", "lg", "low-grade"),
    ("high", "high grade", "hg", "high-grade"),
    ("left", "l", "li", "links"),
    ("right", "r", "re", "rechts"),
)
#: Words of a column that are compared; Cyrillic and Greek letters that look like Latin ones.
_MOST_WORDS = 60
#: A word that is a slip of another has so few rows, or this share of the other's.
_FEW_SLIPS, _RARE = 2, 0.1
_LOOK_ALIKE = str.maketrans("авекмнорстухіαβεκμνορτυχι", "abekmhopctyxiabekmvoptuxi")


def kinds_notes(column: SourceColumn) -> list[str]:
    """A note where the heading names kinds, and the cells are codes that enter as an amount; two codes do no harm.

    >>> [note[:49] for note in kinds_notes(SourceColumn("Histology", np.array([1.0, 2.0, 5.0, 5.0]), "t.csv"))]
    ['Histology holds the codes 1, 2, 5, which enter as']
    >>> kinds_notes(SourceColumn("ECOG", np.array([0.0, 1.0, 2.0, 3.0]), "t.csv"))
    []
    """
    plain = key(column.name)
    kinds, group = _KINDS.fullmatch(plain), _GROUPS.fullmatch(plain)
    if not (kinds or group) or _ORDERED.fullmatch(plain):
        return []
    values = column.numbers()
    codes = np.unique(values[np.isfinite(values)])
    if len(codes) < 3 or (codes != np.floor(codes)).any() or (not kinds and len(codes) > _MOST_GROUPS):
        return []
    texts = [f"{code:.15g}" for code in codes.tolist()]
    if len(codes) > MOST_LEVELS:
        return [
            f"{column.name} holds {len(codes)} codes, which enter as an amount. If they are kinds without an order, "
            f"group them in the table, or leave the column out: {endpoints.as_option('exclude', [column.name])}"
        ]
    name = json.dumps(column.name, ensure_ascii=False)
    return [
        f"{column.name} holds the codes {', '.join(texts)}, which enter as an amount. If they are kinds without an "
        f"order: {endpoints.as_option(f'column.{name}.levels', texts)}"
    ]


def age_notes(column: SourceColumn) -> list[str]:
    """A note where somebody is older than anyone, and most are not: the column is in years.

    >>> age_notes(SourceColumn("Age at diagnosis", np.array([61.0, 650.0, 48.0]), "t.csv"))
    ['Age at diagnosis is 650 in data row 2, older than anyone: correct it.']
    """
    named = re.match(r"age([\W_]|at|$)|alter$", column.name.casefold())
    if named is None or endpoints.unit_of(column.name) in ("days", "weeks", "months"):
        return []
    wrong = np.flatnonzero((values := column.numbers()) > _OLDEST).tolist()
    if not np.isfinite(values).any() or np.nanmedian(values) > _OLDEST:
        return []
    often, near = int((values == _NOBODY).sum()), int(((values >= 90) & (values < _NOBODY)).sum())
    if not wrong and often >= 2 and often > near:
        return [
            f"{column.name} is 99 in {often} rows, and 90 to 98 in {near}: if that means not known, say "
            f'missing = ["99"] in [column."{column.name}"].'
        ]
    if not wrong:
        return []
    return [f"{column.name} is {values[wrong[0]]:g} in data row {column.row(wrong[0])}, older than anyone: correct it."]


def design_notes(column: SourceColumn) -> list[str]:
    """A note where the heading says that a column was made for an analysis, and is no property of a patient.

    >>> design_notes(SourceColumn("fold", np.array([1.0, 2.0]), "t.csv"))[0][:52]
    'fold is by its name a part of a split or a weight, a'
    """
    if not _DESIGN.fullmatch(key(column.name)):
        return []
    return [
        f"{column.name} is by its name a part of a split or a weight, and enters as a feature: "
        f"{endpoints.as_option('exclude', [column.name])} leaves it out."
    ]


def serial_date_notes(column: SourceColumn) -> list[str]:
    """A note where all numbers may be days of Excel's calendar, as dates are where a cell lost its format."""
    values = column.numbers()
    values = values[np.isfinite(values)]
    whole = len(values) >= _FEWEST and bool((values % 1 == 0).all())
    if (
        not whole
        or _KINDS.fullmatch(key(column.name))  # postal codes are as long
        or values.min() < _FIRST_SERIAL
        or values.max() > _LAST_SERIAL
        or len(np.unique(values)) < len(values) / 2
    ):
        return []
    first, last = (np.datetime64("1899-12-30") + int(value) for value in (values.min(), values.max()))
    return [
        f"{column.name} is {values.min():g} to {values.max():g}: as Excel's days these are dates from {first} to "
        f"{last}. If they are, {endpoints.as_option('exclude', [column.name])} leaves them out."
    ]


def row_name_notes(column: SourceColumn) -> list[str]:
    """A note where each row has another whole number of as many digits, five or more, as records have.

    >>> row_name_notes(SourceColumn("tracking", 7919.0 * np.arange(201, 240), "t.csv"))[0][:63]
    'tracking is another number of 7 digits in each row: if it names'
    """
    values = column.numbers()
    if len(values) < _FEWEST or not np.isfinite(values).all() or (values % 1).any() or values.min() < _FIRST_RECORD:
        return []
    if _MEASURE.fullmatch(column.name.casefold()):
        return []
    digits = len(f"{values.max():.0f}")
    round_ones = (values % 100 == 0).mean() > _MOST_ROUND  # as of platelets
    if len(f"{values.min():.0f}") < digits or len(np.unique(values)) < len(values) or round_ones:
        return []
    return [
        f"{column.name} is another number of {digits} digits in each row: if it names them, "
        f"{endpoints.as_option('exclude', [column.name])} leaves it out."
    ]


def share_notes(column: SourceColumn) -> list[str]:
    """A note where whole numbers up to 100 stand beside fractions of one: percentages and shares in one column.

    >>> mixed = np.array([*range(10, 50), *(0.05 + 0.01 * i for i in range(20))])
    >>> share_notes(SourceColumn("ki67", mixed, "t.csv"))[0][:60]
    'ki67 has whole numbers in 40 rows and fractions in 20; corre'
    """
    values = column.numbers()
    values = values[np.isfinite(values)]
    parts = (values > 0) & (values < 1)
    rest = values[~parts & (values != 0)]
    few = min(int(parts.sum()), len(rest)) < max(3, len(values) / 20)
    if few or (rest % 1 != 0).any() or values.min() < 0 or values.max() > 100 or len(np.unique(rest)) <= MOST_LEVELS:
        return []
    hundredths = values[parts] * 100
    quarters = not (values[parts] * 4 % 1).any()  # as of years
    if quarters or np.abs(hundredths % 1 - 0.5).min() < 0.49:
        return []
    return [
        f"{column.name} has whole numbers in {len(rest)} rows and fractions in {int(parts.sum())}; correct them if "
        "some are percentages and others fractions of one."
    ]


def excel_date_notes(encoding: Encoding) -> list[str]:
    """A note where levels are what Excel makes of 1-2 or 3/4.

    >>> excel_date_notes(Encoding("nodes", "clinical", levels=("0", "1-2", "03. Apr")))
    ["nodes: '03. Apr' may be a range or a fraction that Excel converted: correct it in the table."]
    """
    dates = [word for word in (*encoding.levels, *encoding.grouped) if _EXCELS_DATE.fullmatch(word.strip())]
    words = {word.strip().casefold()[:3] for word in encoding.levels}
    if not dates or len(dates) == len(words) > 2:  # months of the year
        return []
    shown = ", ".join(map(repr, dates[:4]))
    return [f"{encoding.column}: {shown} may be a range or a fraction that Excel converted: correct it in the table."]


def spelling_notes(encoding: Encoding) -> list[str]:
    """A note where levels of a column say the same in other words.

    >>> spelling_notes(Encoding("smoker", "clinical", levels=("no", "yes", "Y", "other"), grouped=("N",)))
    ["smoker: 'yes' and 'Y' are levels apart, 'no' and 'N' are levels apart: write them alike, if they say the same."]
    """
    held = {level_key(word): word for word in (*encoding.levels, *encoding.grouped)}
    alike = [[held[level_key(word)] for word in words if level_key(word) in held] for words in _SAME]
    if encoding.ordered:
        ranks = [stage_rank(level) for level in encoding.levels]
        alike = [
            [level for level, of in zip(encoding.levels, ranks, strict=True) if of == rank]
            for rank in dict.fromkeys(rank for rank in ranks if rank)
        ]
    told = [f"{' and '.join(map(repr, words))} are levels apart" for words in alike if len(words) > 1]
    return [f"{encoding.column}: {', '.join(told)}: write them alike, if they say the same."] if told else []


def slip_of_pen_notes(encoding: Encoding, column: SourceColumn) -> list[str]:
    """A note where two levels look the same, or one of them is rare and one letter apart, as ``mael`` and ``male``.

    >>> words = ["male"] * 30 + ["female"] * 30 + ["mael"]
    >>> sex = Encoding("sex", "clinical", levels=("male", "female", "mael"))
    >>> slip_of_pen_notes(sex, SourceColumn("sex", words, "t.csv"))
    ["sex: 'male' and 'mael' are levels apart: write them alike, if they say the same."]
    """
    words = [] if encoding.ordered else [word for word in (*encoding.levels, *encoding.grouped) if word != OTHER]
    if len(words) < 2:
        return []
    often = Counter(map(level_key, column.texts()))
    pairs = [(one, two) for at, one in enumerate(words[:_MOST_WORDS]) for two in words[at + 1 : _MOST_WORDS]]
    told = [
        f"{one!r} and {two!r} are levels apart"
        for one, two in pairs
        if _looks_like(one, two, rare=_is_rare(often[level_key(one)], often[level_key(two)]))
    ]
    return [f"{encoding.column}: {', '.join(told[:4])}: write them alike, if they say the same."] if told else []


def _is_rare(*often: int) -> bool:
    """Whether one of two words is rare beside the other, as slips are."""
    return min(often) <= max(_FEW_SLIPS, _RARE * max(often))


def _looks_like(one: str, two: str, *, rare: bool) -> bool:
    """Whether words differ in the script of letters or the order of two; if one is ``rare``, in one of five or more.

    Numbers differ on purpose, and so does what a Greek a denies: typical, atypical.
    """
    one, two = (word.casefold().translate(_LOOK_ALIKE) for word in (one, two))
    mine, theirs = (re.findall(r"[^\W\d_]+|\d+", word) for word in (one, two))
    if one == two or len(mine) != len(theirs):
        return one == two
    different = [pair for pair in zip(mine, theirs, strict=True) if pair[0] != pair[1]]
    if len(different) != 1 or any(re.fullmatch(r"[ivx]+[abc]?|\d+", word) for word in different[0]):
        return False
    a, b = sorted(different[0], key=len)
    if b == f"a{a}":
        return False
    start = next(at for at, (x, y) in enumerate(zip(f"{a} ", f"{b} ", strict=False)) if x != y)
    swapped = a[start:] == b[start + 1 : start + 2] + b[start : start + 1] + b[start + 2 :]
    one_apart = rare and any(a[start + i :] == b[start + j :] for i, j in ((1, 1), (0, 1)))
    return len(min(a, b, key=len)) > (3 if swapped else 4) and (swapped or one_apart)


def no_stage_notes(encoding: Encoding) -> list[str]:
    """A note where a few words among stages are none, and no order was given to the others: slips, mostly.

    >>> no_stage_notes(Encoding("T.stage", "stage", levels=("T1", "T2", "TX")))[0][:47]
    "T.stage holds 'TX', which is no stage: its leve"
    """
    words = [word for word in (*encoding.levels, *encoding.grouped) if word != OTHER or not encoding.grouped]
    strange = [word for word in words if not stage_rank(word)]
    if encoding.family != "stage" or encoding.ordered or not strange or 2 * len(strange) > len(words):
        return []
    shown = ", ".join(map(repr, strange[:4]))
    name = json.dumps(encoding.column, ensure_ascii=False)
    return [
        f"{encoding.column} holds {shown}, which is no stage: its levels are features without an order. Correct "
        f"mistakes; if that means not known: {endpoints.as_option(f'column.{name}.missing', strange)}"
    ]


def mixed_unit_notes(column: SourceColumn) -> list[str]:
    """A note where the distribution of a time is that of one mixed with itself, thirty times shorter: months and days.

    Compared are the likelihoods of the logarithms under a generalised gamma distribution (Prentice 1974), and under a
    mixture of it with itself moved by the days of a month. None of 42 public time columns is told.
    """
    values = column.numbers()
    spread = np.sort(np.log(values[values > 0]))
    n = len(spread)
    if n < _FEWEST_TIMES or spread[int(0.95 * n)] - spread[int(0.05 * n)] < _MONTH:
        return []
    u = spread[np.linspace(0, n - 1, min(n, _MOST_TIMES)).astype(int)]
    plain = max(_most_likely(u, [float(np.median(u)), float(np.log(u.std())), q])[0] for q in (0.0, 1.0))
    beside, share = max(
        _most_likely(u, [float(np.quantile(u, 0.7)), float(np.log(u.std() / 2)), q, start])
        for q in (0.0, 1.0)
        for start in (-1.5, 0.0, 1.5)
    )
    gain, least = beside - plain, min(share, 1 - share)
    if gain < _CERTAIN or least < _LEAST_SHARE:
        return []
    return [
        f"{column.name}: {np.exp(spread[n // 20]):.4g} to {np.exp(spread[-n // 20]):.4g} in nine of ten rows; by its "
        f"distribution {share:.0%} may be in another unit than the others, months among days: check it."
    ]


def _most_likely(u: FloatArray, start: list[float]) -> tuple[float, float]:
    """The greatest log likelihood from a start, and of a mixture (four parameters) the share of the shorter times."""
    from scipy.optimize import minimize
    from scipy.special import expit, gammaln

    def density(w: FloatArray, scale: float, q: float) -> FloatArray:
        w = w / scale
        if abs(q) < 0.01:
            return np.asarray(-0.5 * w**2 - 0.5 * np.log(2 * np.pi) - np.log(scale))
        k = q**-2.0
        shape = np.log(abs(q)) - np.log(scale) + k * np.log(k) - gammaln(k)
        return np.asarray(shape + k * (q * w - np.exp(np.clip(q * w, -700.0, 50.0))))

    def loss(at: FloatArray) -> float:
        if abs(at[2]) > 6 or abs(at[1]) > 4 or (len(at) > 3 and abs(at[3]) > 8):
            return 1e9
        scale = float(np.exp(at[1]))
        found = density(u - at[0], scale, float(at[2]))
        if len(at) > 3:
            short = density(u + _MONTH - at[0], scale, float(at[2]))
            found = np.logaddexp(np.log(expit(-at[3])) + found, np.log(expit(at[3])) + short)
        return -float(found.sum())

    found = minimize(loss, start, method="Nelder-Mead", options={"maxiter": 500, "xatol": 1e-3, "fatol": 1e-2})
    return -float(found.fun), float(expit(found.x[3])) if len(start) > 3 else 0.0


def course_notes(encodings: Sequence[Encoding], X: FloatArray, endpoint: Endpoint) -> list[str]:
    """Notes on columns that may have been filled in during the follow-up, by how they go with its length or its end.

    Censoring asks no prognosis: what is the greater the longer the censored were followed, and the greater the longer
    those with the event lived, counts the follow-up. And of what was known at the beginning, no value makes all have
    the event.

    Parameters
    ----------
    encodings, X, endpoint
        How columns became features, shape (cases, features), and what is to be predicted.
    """
    if not isinstance(endpoint, Survival) or endpoint.entry_days is not None:
        return []
    owner = [encoding for encoding in encodings for _ in encoding.features]
    notes: dict[str, str] = {}
    for encoding, values in zip(owner, X.T, strict=True):
        if is_measured(encoding.family) or encoding.column in notes:
            continue
        why = _grows(values, endpoint) or _all_have_it(values, endpoint.event)
        if why:
            notes[encoding.column] = (
                f"{encoding.column} {why}. If it was filled in during the follow-up, "
                f"{endpoints.as_option('exclude', [encoding.column])} leaves it out."
            )
    return list(notes.values())


def _grows(values: FloatArray, endpoint: Survival) -> str:
    from scipy.stats import spearmanr

    time, event = endpoint.observed_days, endpoint.any_event
    known = np.isfinite(values)
    parts = [known & event, known & ~event]
    if min(int(part.sum()) for part in parts) < _FEWEST or len(np.unique(values[known])) < 3:
        return ""
    if any(not np.ptp(values[part]) or not np.ptp(time[part]) for part in parts):
        return ""
    with_event, censored = (float(spearmanr(values[part], time[part]).statistic) for part in parts)
    if min(with_event, censored) < _GROWS:
        return ""
    return (
        f"grows with the length of the follow-up (rank correlation {with_event:.2f} among cases with the event and "
        f"{censored:.2f} among the censored), as a count of visits does"
    )


def _all_have_it(values: FloatArray, event: BoolArray) -> str:
    known = np.isfinite(values)
    if len(np.unique(values[known])) != 2:
        return ""
    has = known & (values == np.nanmax(values))
    other = known & ~has
    share = float(event[other].mean())
    if not event[has].all() or share > _MOST_OTHERS or share ** int(has.sum()) > _BY_CHANCE:
        return ""
    return f"is there in {count(int(has.sum()), 'case')} that all had the event, as had {share:.0%} of the others"

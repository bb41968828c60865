"""Convert numbers as people write them, column by column, to numbers with a decimal point.

A comma is a decimal sign or separates thousands, and so is a point. One cell does not tell which, but a column and its
table mostly do: 12,5 and 0,512 have a decimal comma, 1,234.5 and 1,234,567 have not. If the table does not tell, the
cells are kept and refused where numbers are needed; the table is refused if they could be read as other numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_SIGN = r"[-+]?"
_EXPONENT = r"([eE][-+]?\d+)?"
#: Certainly a decimal comma: not three digits after it, or no possible group of thousands before it.
_COMMA_DECIMAL = re.compile(
    rf"{_SIGN}(\d*,(\d{{1,2}}|\d{{4,}})|(0|0\d+|\d{{4,}}),\d+|\d{{1,3}}([. '’]\d{{3}})+,\d+){_EXPONENT}"
)
_COMMA_THOUSANDS = re.compile(rf"{_SIGN}([1-9]\d{{0,2}}(,\d{{3}})+\.\d*|[1-9]\d{{0,2}}(,\d{{3}}){{2,}})")
_EITHER = re.compile(rf"{_SIGN}[1-9]\d{{0,2}},\d{{3}}")
_POINT_THOUSANDS = re.compile(rf"{_SIGN}[1-9]\d{{0,2}}(\.\d{{3}})+")
_SEVERAL_POINTS = re.compile(rf"{_SIGN}[1-9]\d{{0,2}}(\.\d{{3}}){{2,}}")
_PLAIN = re.compile(rf"{_SIGN}(\d+\.?\d*|\.\d+){_EXPONENT}")
_POINT_DECIMAL = re.compile(rf"{_SIGN}(\d*\.\d+){_EXPONENT}")
_PARTED = re.compile(rf"{_SIGN}\d{{1,3}}([ '’]\d{{3}})+([.,]\d+)?")
_ODD = re.compile("[,'’\\s\u2212=]|\\.[^\0.]*\\.")
#: Blanks that part thousands: no-break, thin and narrow no-break, as R, LaTeX and CLDR's locales write them.
_NARROW = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3})")
#: Excel's notation for numbers as text: ="001"
_AS_TEXT = re.compile(r'="?([^"]*)"?')


def plain_numbers(
    names: Sequence[str], columns: Sequence[list[str]], delimiter: str
) -> tuple[list[list[str]], list[str]]:
    """The columns with their numbers in plain notation, and notes on decisions.

    Raises
    ------
    ValueError
        When a column mixes notations so that a number could be misread; the message names it.
    """
    odd = [bool(column) and _is_odd(column) for column in columns]
    cleaned = [
        [_as_typed(cell) for cell in column] if is_odd else column for column, is_odd in zip(columns, odd, strict=True)
    ]
    kinds = [_kinds(column) if is_odd else set() for column, is_odd in zip(cleaned, odd, strict=True)]
    decimal_comma = any("comma" in kind for kind in kinds)
    points = not decimal_comma and any(map(_has_points, cleaned))
    found, doubtful = [], []
    for name, column, kind, is_odd in zip(names, cleaned, kinds, odd, strict=True):
        if decimal_comma:
            _expect_no_doubt(name, column, kind)
        if is_odd and kind:
            column = [_plain(cell, _decimal_sign(kind, delimiter, decimal_comma, points)) for cell in column]
            if kind == {"either"} and not decimal_comma and delimiter == ";" and not points:
                doubtful.append(name)
        found.append(column)
    if doubtful:
        return found, [
            f"The comma in {', '.join(doubtful[:5])} was taken as decimal, since nothing shows that it separates "
            "thousands."
        ]
    return found, []


def _is_odd(column: Sequence[str]) -> bool:
    return _ODD.search("\0".join(column)) is not None


def _as_typed(cell: str) -> str:
    if cell[:1] == "=" and (typed := _AS_TEXT.fullmatch(cell)):
        cell = typed[1]
    if cell[:1] == "\u2212":
        cell = f"-{cell[1:]}"
    return _NARROW.sub(" ", cell)


def _kinds(column: Sequence[str]) -> set[str]:
    """Which notations with a comma or groups of digits a column has; none if most cells are not numbers."""
    kinds: set[str] = set()
    numbers = held = 0
    for cell in column:
        if not cell:
            continue
        held += 1
        kind = _kind(cell)
        numbers += bool(kind)
        kinds |= {kind} - {"", "plain"}
    return kinds if 2 * numbers >= held else set()


def _kind(cell: str) -> str:
    for kind, rule in (
        ("plain", _PLAIN),
        ("comma", _COMMA_DECIMAL),
        ("thousands", _COMMA_THOUSANDS),
        ("either", _EITHER),
        ("points", _SEVERAL_POINTS),
        ("parted", _PARTED),
    ):
        if rule.fullmatch(cell):
            return kind
    return ""


def _has_points(column: Sequence[str]) -> bool:
    return any(_POINT_DECIMAL.fullmatch(cell) for cell in column[:50])


def _decimal_sign(kind: set[str], delimiter: str, decimal_comma: bool, points: bool) -> str:
    """The column's decimal sign; None if undecided."""
    if "comma" in kind:
        return "" if "thousands" in kind else ","
    if "thousands" in kind:
        return "."
    if "either" in kind:
        return "," if decimal_comma or (delimiter == ";" and not points) else ""
    return "." if kind == {"parted"} else ","


def _plain(cell: str, decimal: str) -> str:
    kind = _kind(cell)
    if kind in ("", "plain") or not decimal:
        return cell
    cell = re.sub(r"[ '’]", "", cell)
    if kind == "parted":
        return cell.replace(",", ".")
    if decimal == ".":
        return cell.replace(",", "")
    return cell.replace(".", "").replace(",", ".")


def _expect_no_doubt(name: str, column: Sequence[str], kind: set[str]) -> None:
    """Refuse 1.234 in a table with decimal commas: it may be a thousand or a little more than one."""
    held = [cell for cell in column if "." in cell and _PLAIN.fullmatch(cell)]
    suspicious = bool(held) and all(_POINT_THOUSANDS.fullmatch(cell) for cell in held)
    if suspicious:
        other = "12,5" if "comma" not in kind else next(cell for cell in column if _kind(cell) == "comma")
        whole = held[0].replace(".", "")
        raise ValueError(
            f"column {name!r} holds {held[0]!r} in a table with decimal commas ({other}): is it {whole}? "
            "Write all its numbers with one decimal sign and without thousands separators"
        )

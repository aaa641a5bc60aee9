"""Values of document fields: dates, amounts and currencies as people write them, and the one form that is kept."""

from __future__ import annotations

import datetime
import re
from typing import Any

AMBIGUOUS_DATE = "ambiguous_date"
UNREADABLE_DATE = "unreadable_date"
AMBIGUOUS_AMOUNT = "ambiguous_amount"
UNREADABLE_AMOUNT = "unreadable_amount"
UNKNOWN_VALUE = "unknown_value"
WRONG_TYPE = "wrong_type"

_MONTHS = (
    "jan january januar jänner janvier enero ene gennaio gen janeiro",
    "feb february februar février fevrier fév febrero febbraio fevereiro",
    "mar march märz maerz mär mars marzo março",
    "apr april avril avr abril abr aprile",
    "may mai mayo maggio mag maio",
    "jun june juni juin junio giugno giu junho",
    "jul july juli juillet juil julio luglio lug julho",
    "aug august août aout agosto ago",
    "sep sept september septembre septiembre settembre set setembro",
    "oct october oktober okt octobre octubre ottobre ott outubro",
    "nov november novembre noviembre novembro",
    "dec december dezember dez décembre decembre déc diciembre dic dicembre dezembro",
)
MONTHS = {name: number for number, names in enumerate(_MONTHS, start=1) for name in names.split()}
CURRENCIES = {"€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR", "₩": "KRW", "$": "USD", "US$": "USD", "Fr.": "CHF"}

_ISO = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?:[T ][\d:.]+Z?)?")
_NUMBERS = re.compile(r"(\d{1,2})\s*([-/.])\s*(\d{1,2})\s*\2\s*(\d{4}|\d{2})")
_DAY_NAME = re.compile(
    r"(\d{1,2})(?:st|nd|rd|th|er|º)?[\s.\-]+(?:de\s+)?([^\W\d_]+)\.?[\s,\-]+(?:de\s+)?(\d{4}|\d{2})"
)
_NAME_DAY = re.compile(r"([^\W\d_]+)\.?\s+(\d{1,2})(?:st|nd|rd|th)?,?\s+(\d{4})")
_AMOUNT = re.compile(r"([-−(]?)\s*(\d[\d.,' \u00a0\u202f]*)\s*([-−)]?)")


def _date(year: int, month: int, day: int) -> str | None:
    year += 2000 if year < 70 else 1900 if year < 100 else 0
    try:
        return datetime.date(year, month, day).isoformat()
    except ValueError:
        return None


def parse_date(text: Any, day_first: bool | None = None) -> tuple[str | None, str | None]:
    """A date as ISO 8601, and why it is none.

    Reads `2024-03-17`, `17.03.2024`, `17/03/24`, `March 17, 2024`, `17. März 2024` and the like (months in English,
    German, French, Spanish, Italian and Portuguese). Dots mean that the day comes first.

    Args:
        text: What was written.
        day_first (`bool`, *optional*): What `03/04/2024` means; left open, it is ambiguous.

    Returns:
        `(str, None)`, or `(None, reason)` with `"ambiguous_date"` or `"unreadable_date"`.

    Example:
        >>> parse_date("17. März 2024"), parse_date("03/04/2024"), parse_date("03/04/2024", day_first=True)
        (('2024-03-17', None), (None, 'ambiguous_date'), ('2024-04-03', None))
    """
    text = str(text).strip()
    if match := _ISO.fullmatch(text):
        found = _date(*(int(part) for part in match.groups()))
        return found, None if found else UNREADABLE_DATE
    if match := _NUMBERS.fullmatch(text):
        one, two, year = int(match[1]), int(match[3]), int(match[4])
        options = {True: _date(year, two, one), False: _date(year, one, two)}
        if match[2] == "." and day_first is None:
            day_first = True
        possible = [first for first, found in options.items() if found]
        if not possible:
            return None, UNREADABLE_DATE
        if len(possible) == 2 and one != two and day_first is None:
            return None, AMBIGUOUS_DATE
        chosen = possible[0] if len(possible) == 1 or day_first is None else day_first
        return options[chosen], None
    for pattern, order in ((_DAY_NAME, (3, 2, 1)), (_NAME_DAY, (3, 1, 2))):
        if match := pattern.fullmatch(text):
            month = MONTHS.get(match[order[1]].lower())
            found = _date(int(match[order[0]]), month, int(match[order[2]])) if month else None
            return found, None if found else UNREADABLE_DATE
    return None, UNREADABLE_DATE


def parse_amount(value: Any, decimals: int = 2) -> tuple[str | None, str | None]:
    """An amount with a decimal point and no thousands separator, and why it is none.

    The last separator is the decimal one if another one stands before it, or if not exactly three digits follow;
    `1.234` and `1,234` alone are ambiguous. Currency signs and codes around the number do not matter.

    Args:
        value: A number, or text such as `"1.234,50 EUR"` or `"-$12.50"`.
        decimals (`int`, *optional*, defaults to 2): At least so many digits after the point.

    Returns:
        `(str, None)`, or `(None, reason)` with `"ambiguous_amount"` or `"unreadable_amount"`.

    Example:
        >>> parse_amount("1.234,5 EUR"), parse_amount("$12.50"), parse_amount("1,234")
        (('1234.50', None), ('12.50', None), (None, 'ambiguous_amount'))
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value != value or value in (float("inf"), float("-inf")):
            return None, UNREADABLE_AMOUNT
        return _with_decimals("-" if value < 0 else "", *_halves(repr(abs(value))), decimals), None
    found = list(_AMOUNT.finditer(str(value)))
    rest = _AMOUNT.sub(" ", str(value))
    if len(found) != 1 or len(rest.strip()) > 5 or any(char.isdigit() for char in rest):
        return None, UNREADABLE_AMOUNT
    minus = "-" if set(found[0][1] + found[0][3]) & set("-−()") else ""
    minus = "-" if re.match(r"\s*[-−]", str(value)) else minus
    digits = re.sub(r"[' \u00a0\u202f]", "", found[0][2]).rstrip(".,")
    marks = [char for char in digits if char in ".,"]
    if not marks:
        return _with_decimals(minus, digits, "", decimals), None
    groups = re.split(r"[.,]", digits)
    if len(set(marks)) == 1 and len(marks) > 1:  # 1.234.567
        whole, part = "".join(groups), ""
        fits = all(len(group) == 3 for group in groups[1:])
    elif len(marks) == 1:
        if len(groups[1]) == 3 and 0 < len(groups[0]) <= 3 and groups[0] != "0":
            return None, AMBIGUOUS_AMOUNT
        (whole, part), fits = groups, True
    else:
        whole, part = "".join(groups[:-1]), groups[-1]
        fits = all(len(group) == 3 for group in groups[1:-1]) and len(set(marks[:-1])) == 1 and marks[-1] != marks[0]
    return (_with_decimals(minus, whole, part, decimals), None) if fits else (None, UNREADABLE_AMOUNT)


def _halves(text: str) -> tuple[str, str]:
    if "e" in text:
        text = f"{float(text):f}".rstrip("0")
    whole, _, part = text.partition(".")
    return whole, "" if part == "0" else part


def _with_decimals(minus: str, whole: str, part: str, decimals: int) -> str:
    whole = whole.lstrip("0") or "0"
    kept = part.rstrip("0")
    text = f"{whole}.{kept.ljust(decimals, '0')}" if kept or decimals else whole
    return text if set(text) <= set("0.") else minus + text


def parse_currency(text: Any) -> tuple[str | None, str | None]:
    """A currency as its ISO 4217 code: from a code or a sign (`$` is taken for USD)."""
    text = str(text).strip()
    if re.fullmatch(r"[A-Za-z]{3}", text):
        return text.upper(), None
    found = CURRENCIES.get(text)
    return found, None if found else UNKNOWN_VALUE


def dates_in(text: str, day_first: bool | None = None) -> set[str]:
    """All dates of a text, as ISO 8601; both readings of an ambiguous one."""
    found = set()
    for pattern in (_ISO, _NUMBERS, _DAY_NAME, _NAME_DAY):
        for match in pattern.finditer(text):
            for first in (True, False) if day_first is None else (day_first,):
                date, _ = parse_date(match[0], first)
                found.add(date)
    return {date for date in found if date}


def amounts_in(text: str, decimals: int = 2) -> set[str]:
    """All amounts of a text in the kept form; both readings of an ambiguous one. Spaces end a number here."""
    found = set()
    for match in re.finditer(r"[-−]?\d[\d.,']*", text):
        shown = match[0].rstrip(".,'")
        amount, why = parse_amount(shown, decimals)
        if why == AMBIGUOUS_AMOUNT:
            plain = re.sub(r"[.,]", "", shown)
            found |= {parse_amount(plain, decimals)[0], parse_amount(re.sub(r"[.,]", ".", shown) + "0", decimals)[0]}
        found |= {amount}
    return {amount for amount in found if amount}

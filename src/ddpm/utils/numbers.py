"""Numbers and times as people write them: 1e3, 100k, 1h30m."""

import re
from fractions import Fraction

from .errors import UsageError

WHOLE = re.compile(r"([+-]?(?:\d+|\d{1,3}(?:,\d{3})+)(?:\.\d+)?(?:e\+?\d{1,3})?)([kmb]?)", re.I)
MOST = 400  # characters of a number
FACTORS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
MINUTES = {"d": 1440.0, "h": 60.0, "m": 1.0, "s": 1 / 60}
UNIT = "days?|d|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s"
SPAN = re.compile(rf"(\d+\.?\d*|\.\d+)({UNIT})", re.I)


def read_whole(text: str) -> int:
    """Return a whole number: 1000, 1,000, 1_000, 1e3, or 100k, 2M, 1B for thousands, millions and
    more. Raise UsageError, in a sentence, for any other text."""
    found = WHOLE.fullmatch(text.strip().replace("_", "")) if len(text) <= MOST else None
    value = Fraction(found[1].replace(",", "")) * FACTORS[found[2].lower()] if found else None
    if value is None or value.denominator != 1:
        raise UsageError(f"{text!r} is not a whole number: write 1000, 1e3 or 100k")
    return value.numerator


def read_number(text: str) -> float:
    """Return a number. Raise UsageError, in a sentence, for any other text."""
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a number: write 0.5 or 1e-3") from None


def read_minutes(text: str) -> float:
    """Return minutes: 90 and 90m are 90, and so is 1.5h or 1h30m; 30s is half of one.

    Raise UsageError, in a sentence, for any other text.
    """
    try:
        return float(text)
    except ValueError:
        compact = "".join(text.split())
        spans = SPAN.findall(compact)
        if not spans or SPAN.sub("", compact):
            raise UsageError(f"{text!r} is not a time: write 90, 90m, 1.5h or 30s") from None
        return sum(float(number) * MINUTES[unit[0].lower()] for number, unit in spans)

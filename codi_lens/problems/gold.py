"""Gold answers: a field is one whole number, or one sentence says why it is not.

`parse_answer` finds some number in whatever a model writes. That is right for generated text and
wrong for a gold field, where `3/4` is not 4: here the whole field has to be one number.
"""

from __future__ import annotations

import math
import numbers
import re
import unicodedata
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from codi_lens.errors import ProblemError, shown

Number = int | float

MOST_DIGITS = 300
"""Longer numbers do not fit a float; degenerate models write them, no problem asks for them."""
_NO_NUMBER = "in which there is no number"
_TOO_LARGE = f"which has more than {MOST_DIGITS} digits"
_TOO_SMALL = "which is too close to 0 to be told from it"
_VALID = "give one number, such as 1234.5, -3/4, 1 1/2 or 1e3"
_LONGEST = 1000  # characters of a number, however it is written
_LONGEST_TEXT = 100_000  # and of what is written around it

_PLAIN = r"(?:\d+(?:\.\d*)?|\.\d+)"
_GROUPED = r"[1-9]\d{0,2}(?P<by>[, _'’])\d{3}(?:(?P=by)\d{3})*(?:\.\d*)?"
_BRACED = r"(?P<power>[-+]?\d+)|\{ ?(?P<braced>[-+]?\d+) ?\}"
_POWER = rf"(?:(?:\^|\*\*) ?(?:{_BRACED})|(?P<raised>[⁺⁻]?[⁰¹²³⁴-⁹]+))"
_INTEGER = r"(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)"
_CURRENCY = r"(?:US\$|[$€£¥₹₩]|USD|EUR|GBP|JPY|CNY|INR|CAD|AUD|CHF)"
_FIELD = re.compile(
    rf"(?P<sign>[-+])? ?(?:{_CURRENCY} ?)?(?P<inner>[-+])?(?:"
    rf"(?:(?P<whole>\d+) )?(?P<top>{_INTEGER}) ?/ ?(?P<under>[-+])?(?P<bottom>{_INTEGER})"
    rf"|(?P<mantissa>{_PLAIN})(?:[eE](?P<exponent>[-+]?\d+)"
    rf"| ?(?:[x×*·]|\\times|\\cdot) ?10 ?{_POWER})"
    rf"|(?P<grouped>{_GROUPED})|(?P<plain>{_PLAIN})"
    rf")(?: ?(?:%|per ?cent|{_CURRENCY}))?"
)
MARKER = re.compile(r"#{3,}|answer\s+is", re.IGNORECASE)
"""What stands before an answer: GSM8K's "####", Coconut's "###", or CODI's words."""
_HASHES = re.compile(r"#{3,}")
_WORDS = re.compile(r"answer\s+is\b\s*:?", re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_PART = r"(?:\{ ?([^{}\s/]+) ?\}|(\d))"
_FRAC = re.compile(rf"\\[dtc]?frac ?{_PART} ?{_PART}")
_LATEX = {"{,}": ",", r"\!": "", r"\$": "$", r"\%": "%"}
_LATEX |= dict.fromkeys((r"\,", r"\;", r"\:", r"\ ", r"\quad"), " ")
_WRAPPERS = (("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("{", "}"))
_SAME = str.maketrans("−‐‑‒–﹣－⁄∕", "-------//")
_WRONG = (
    (r"\d ?:", "which is a time or a ratio"),
    (r"\d ?([/.-]) ?\d+ ?\1 ?\d", "which is a date, or groups digits by neither comma nor space"),
    (r"[(\[{].*[,;].*[)\]}]", "which is a pair or a list"),
    (r"\d ?- ?[$€£¥.]?\d", "which is a range or a subtraction"),
    (r"\d ?(?:[-+*×/÷^=] ?[\d(]|[⁰¹²³⁴-⁹])", "which is a calculation"),
    (r"\d,\d", "whose commas are neither in groups of three digits nor surely decimal"),
    (r"\d.*[^\d.].*\d", "in which there is more than one number"),
    (r"[^\W\d_]", "in which the number stands among words"),
)
"""Why a text with a digit in it is not one number: the first that is found in it."""


class _UnreadableError(Exception):
    """Why an answer is not one number, as a clause."""


def read_gold(answer: object, *, of: str = "A problem") -> Number | None:
    r"""The one number that a gold answer is; generated text is read by `parse_answer`.

    Numbers of any library count (Python's, numpy's, pandas', a tensor of no dimension), and None,
    NaN and NA mean that there is no answer. A text is one number: 42, -7, 0.5, 1,234,567 or
    1 234 567 or 1_234, 3/4, 1 1/2, ½, 1e3, 1.5 × 10^3, $5, 5 USD, 50%; also in LaTeX
    (`\frac{3}{4}`, `$42$`), in a `\boxed{}` with words around it, or behind the last "####" or
    "###" of GSM8K and Coconut, or behind "answer is". Commas separate thousands. Signs of currency
    and percent are left out: 50% is 50, as `parse_answer` reads it. Everything else is refused,
    above all what can be read in two ways.

    Args:
        answer: the content of the field.
        of: whose answer it is, as the error says it.

    Returns:
        An int where the number is whole, else a float.

    Raises:
        ProblemError: not one number, or one with more than 300 digits.

    >>> read_gold("3/4"), read_gold("1 1/2"), read_gold("so he has 8 - 1 left\n#### 1,007")
    (0.75, 1.5, 1007)
    >>> read_gold("12:30", of="line 3")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    codi_lens.errors.ProblemError: line 3 has the answer '12:30', which is a time or a ratio; ...
    """
    if type(answer) is int and -(10**9) < answer < 10**9:
        return answer
    try:
        exact = _exact(answer)
        return None if exact is None else _rounded(exact)
    except _UnreadableError as reason:
        raise ProblemError(f"{of} has the answer {shown(answer)}, {reason}; {_VALID}.") from None


def _exact(answer: object) -> Fraction | None:
    # Libraries are known by their types' names, since none is imported for a problem's sake.
    if answer is None or type(answer).__name__ in ("NAType", "NaTType", "MaskedConstant"):
        return None
    if isinstance(answer, str):
        return _in_text(answer)
    if isinstance(answer, bool):
        raise _UnreadableError("which is a truth value")
    if isinstance(answer, numbers.Rational):
        return Fraction(int(answer.numerator), int(answer.denominator))
    if isinstance(answer, Decimal):
        return None if answer.is_nan() else _of_decimal(answer)
    if isinstance(answer, numbers.Real):
        # By its digits: numpy's float16 of 0.1 is meant as 0.1, not as 0.09998.
        value = float(str(answer)) if hasattr(answer, "dtype") else float(answer)
        if math.isinf(value):
            raise _UnreadableError(_NO_NUMBER)
        return None if math.isnan(value) else Fraction(value)
    if getattr(answer, "shape", None) == () and hasattr(answer, "item"):
        try:
            inner = answer.item()  # type: ignore[attr-defined]
        except Exception as error:
            raise _UnreadableError("which has no value") from error
        if type(inner) is not type(answer):
            return _exact(inner)
    raise _UnreadableError(f"which is of type {type(answer).__name__}")


def _rounded(exact: Fraction) -> Number:
    if abs(exact) >= 10**MOST_DIGITS:
        raise _UnreadableError(_TOO_LARGE)
    if exact.denominator == 1:
        return exact.numerator
    value = float(exact)
    if value == 0:
        raise _UnreadableError(_TOO_SMALL)
    return value


def _of_decimal(value: Decimal) -> Fraction:
    """Exactly; an exponent is looked at before there are as many digits."""
    if value.is_infinite():
        raise _UnreadableError(_NO_NUMBER)
    if value and value.adjusted() >= MOST_DIGITS:
        raise _UnreadableError(_TOO_LARGE)
    if value and value.adjusted() < -2 * MOST_DIGITS:
        raise _UnreadableError(_TOO_SMALL)
    return Fraction(value) if value else Fraction(0)


def _in_text(text: str) -> Fraction:
    if len(text) > _LONGEST_TEXT:
        raise _UnreadableError(f"which is longer than {_LONGEST_TEXT} characters")
    if markers := list(_HASHES.finditer(text)) or list(_WORDS.finditer(text)):
        text = text[markers[-1].end() :]
    boxes = {_in_field(content) for content in boxed(text)}
    if len(boxes) > 1:
        raise _UnreadableError("which boxes more than one number")
    return boxes.pop() if boxes else _in_field(text)


def is_missing(answer: object) -> bool:
    """Whether a value of any library says that there is no answer: None, NaN or NA."""
    if answer is None or type(answer).__name__ in ("NAType", "NaTType", "MaskedConstant"):
        return True
    return isinstance(answer, float | Decimal) and math.isnan(answer)


def boxed(text: str) -> list[str]:
    """What the boxes of LaTeX in a text hold, in their order."""
    contents: list[str] = []
    for box in _BOX.finditer(text):
        depth = 1
        for end in range(box.end(), min(len(text), box.end() + _LONGEST)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0:
                contents.append(text[box.end() : end])
                break
    return contents


def _in_field(field: str) -> Fraction:
    if len(field.strip()) > _LONGEST:
        raise _UnreadableError(
            "which is too long for one number" if re.search(r"[^\d\s]", field) else _TOO_LARGE
        )
    text = _simplified(field)
    found = _FIELD.fullmatch(text)
    if found is None or (found["sign"] and found["inner"]):
        raise _UnreadableError(_why_not(text))
    sign = -1 if "-" in (found["sign"] or found["inner"] or "") else 1
    if found["top"]:
        return sign * _fraction(found)
    digits = re.sub(r"[^\d.]", "", found["mantissa"] or found["grouped"] or found["plain"])
    raised = unicodedata.normalize("NFKC", found["raised"] or "").replace("−", "-")
    power = found["exponent"] or found["power"] or found["braced"] or raised
    try:
        return sign * _of_decimal(Decimal(f"{digits}e{power or 0}"))
    except InvalidOperation:  # an exponent beyond all bounds
        raise _UnreadableError(_TOO_SMALL if power.startswith("-") else _TOO_LARGE) from None


def _fraction(found: re.Match[str]) -> Fraction:
    top, bottom = (_of_decimal(Decimal(found[part].replace(",", ""))) for part in ("top", "bottom"))
    if bottom == 0:
        raise _UnreadableError("which divides by zero")
    if found["whole"] is None:
        return top / bottom * (-1 if found["under"] == "-" else 1)
    if found["under"] or top >= bottom or len(found["top"]) == 3:
        raise _UnreadableError("which is not surely a whole number and a proper fraction")
    return _of_decimal(Decimal(found["whole"])) + top / bottom


def _simplified(text: str) -> str:
    """One notation for what only looks different: spaces, dashes, digits, fractions, LaTeX."""
    text = "".join(_simple(character) for character in text).translate(_SAME)
    for written, meant in _LATEX.items():
        text = text.replace(written, meant)
    text = _FRAC.sub(lambda m: f" {m[1] or m[2]}/{m[3] or m[4]} ", text)
    text = " ".join(text.split())
    while True:
        inner = text.removesuffix(".").strip() if re.search(r"[^.]\.$", text) else text
        for left, right in _WRAPPERS:
            if len(inner) > len(left + right) and inner.startswith(left) and inner.endswith(right):
                inner = inner[len(left) : -len(right)].strip()
        if inner == text:
            return text
        text = inner


def _simple(character: str) -> str:
    if character.isascii():
        return character
    kind = unicodedata.category(character)
    if kind == "Nd":
        return str(unicodedata.decimal(character))
    if kind == "Cf":  # marks of direction, of byte order, of no width
        return ""
    if unicodedata.decomposition(character).startswith("<fraction>"):
        return f" {unicodedata.normalize('NFKC', character)}"
    return character


def _why_not(text: str) -> str:
    text = text[:200]
    if not re.search(r"\d", text):
        return _NO_NUMBER
    for pattern, reason in _WRONG:
        if re.search(pattern, text):
            return reason
    return "which is not written as one number"

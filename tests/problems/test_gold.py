"""Gold answers: one whole number in any notation, or one sentence that says why not."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codi_lens import ProblemError
from codi_lens.problems import Problem, is_correct, parse_answer, read_gold, word_problems

ONE_NUMBER = {
    "42": 42,
    " -7 ": -7,
    "−7": -7,
    "- 7": -7,
    "+5": 5,
    "0": 0,
    "-0": 0,
    "007": 7,
    "42.": 42,
    "42.0": 42,
    ".5": 0.5,
    "1,234": 1234,
    "1,234,567.": 1234567,
    "-1,234.5": -1234.5,
    "1 234 567": 1234567,
    "1\u202f234,": None,
    "1\u00a0234.5": 1234.5,
    "1_000": 1000,
    "1'234": 1234,
    "1{,}234": 1234,
    r"1,\!234": 1234,
    r"12\,345": 12345,
    "3/4": 0.75,
    "-1/2": -0.5,
    "3 / 4": 0.75,
    "6/3": 2,
    "1,000/3": 1000 / 3,
    "1 1/2": 1.5,
    "-1 1/2": -1.5,
    "½": 0.5,
    "1½": 1.5,
    "3⁄4": 0.75,
    "1e3": 1000,
    "1.5E-3": 0.0015,
    "-2e+2": -200,
    "0e99999": 0,
    "1.5 × 10^3": 1500,
    r"1.5 \times 10^{-3}": 0.0015,
    "2x10⁻³": 0.002,
    "50%": 50,
    r"12.5\%": 12.5,
    "50 percent": 50,
    "$5": 5,
    "-$5": -5,
    "$-5": -5,
    r"\$1,200.50": 1200.5,
    "5 USD": 5,
    "€ 3,50": None,
    "5€": 5,
    "$42$": 42,
    "$42$.": 42,
    "$$-3$$": -3,
    r"\(42\)": 42,
    r"\[ 42 \]": 42,
    r"\frac{3}{4}": 0.75,
    r"$\dfrac{3}{4}$": 0.75,
    r"-\frac{1}{2}": -0.5,
    r"\frac{-1}{2}": -0.5,
    r"1\frac{1}{2}": 1.5,
    r"\frac34": 0.75,
    r"\boxed{42}": 42,
    r"\boxed{42} in 7 steps": 42,
    r"so 3 + 4 is $\boxed{7}$.": 7,
    r"\boxed{-\frac{1}{2}}": -0.5,
    r"\boxed{7} or \boxed{7.0}": 7,
    "#### 3/4": 0.75,
    "5 + 4 = <<5+4=9>>9\n#### 1,009": 1009,
    "#### 3\nno\n#### 4\n": 4,
    r"#### \boxed{5}": 5,
    "The answer is: 42": 42,
    "The answer is 1 1/2.": 1.5,
    "\u200e42\ufeff": 42,
    "４２": 42,
    "9" * 300: int("9" * 300),
}
REFUSED = {
    "": "no number",
    "none": "no number",
    "NaN": "no number",
    "inf": "no number",
    "-": "no number",
    "####": "no number",
    r"\boxed{}": "no number",
    r"\pi": "no number",
    "forty": "no number",
    "1.234,50": "commas",
    "1,23": "commas",
    "1,2345": "commas",
    "0,123": "commas",
    "1,00,000": "commas",
    "12,34,567.8": "commas",
    "1.234.567": "groups digits",
    "12:30": "a time or a ratio",
    "3:2": "a time or a ratio",
    "3 : 2": "a time or a ratio",
    "(3, 5)": "a pair or a list",
    "[3, 5]": "a pair or a list",
    "{3; 5}": "more than one number",
    "18 - 20": "a range or a subtraction",
    "18–20": "a range or a subtraction",
    "$5-$7": "a range or a subtraction",
    "1-1/2": "a range or a subtraction",
    "1/2/2020": "a date",
    "2020-01-31": "a date",
    "31.12.2020": "a date",
    "3 + 4": "a calculation",
    "2^3": "a calculation",
    "x = 5 = 5": "a calculation",
    "3 4": "more than one number",
    "3 and 4": "more than one number",
    "4, 5": "more than one number",
    "10²": "a calculation",
    "5 dozen": "among words",
    "3 million": "among words",
    "42 apples": "among words",
    "2k": "among words",
    "5th": "among words",
    "0x10": "more than one number",
    "~5": "not written as one number",
    ">5": "not written as one number",
    "±5": "not written as one number",
    "--5": "not written as one number",
    "-$-5": "not written as one number",
    "(5)": "not written as one number",
    "50¢": "not written as one number",
    "1/0": "divides by zero",
    r"\frac{1}{0}": "divides by zero",
    "1 3/2": "not surely",
    "1 100/200": "not surely",
    r"\frac{3 1}{4}": "",
    r"\boxed{3} or \boxed{4}": "more than one number",
    "1e999": "more than 300 digits",
    "1e" + "9" * 30: "more than 300 digits",
    "9" * 301: "more than 300 digits",
    "9" * 5000: "more than 300 digits",
    "1e-999": "too close to 0",
    "-1e-" + "9" * 30: "too close to 0",
    "1e-400": "too close to 0",
    "7, " * 800: "too long",
    "7 " * 80_000: "longer than",
}


def name(value: object) -> str:
    return ascii(value)[:30] if isinstance(value, str) else type(value).__name__


@pytest.mark.parametrize(("text", "number"), ONE_NUMBER.items(), ids=name)
def test_a_gold_text_is_one_number(text: str, number: float | None) -> None:
    if number is None:
        with pytest.raises(ProblemError):
            read_gold(text)
        return
    gold = read_gold(text)
    assert gold == number
    assert type(gold) is type(number)
    assert Problem("?", text, "a").answer == number


@pytest.mark.parametrize(("text", "reason"), REFUSED.items(), ids=name)
def test_any_other_gold_text_is_one_sentence(text: str, reason: str) -> None:
    with pytest.raises(ProblemError, match=f"line 3 has the answer .*{reason}.*; give one") as told:
        read_gold(text, of="line 3")
    assert len(str(told.value)) < 250
    assert "\n" not in str(told.value)


_NOTATIONS = (
    "{}",
    " {} ",
    "{}.",
    "${}$",
    r"\boxed{{{}}}",
    r"$\boxed{{{}}}$ after 3 steps",
    "2 + 2 = 4\n#### {}",
    "The answer is: {}",
    "{}%",
    "${}",
    "{} EUR",
)
notations = st.sampled_from(_NOTATIONS)


@given(st.integers(-(10**12), 10**12), notations, st.sampled_from(["", ",", "_"]))
def test_whole_numbers_are_read_back_from_every_notation(n: int, around: str, by: str) -> None:
    gold = read_gold(around.format(format(n, by)))
    assert (gold, type(gold)) == (n, int)
    assert read_gold(around.format(format(n, ",").replace(",", " "))) == n
    assert read_gold(around.format(format(n, "").replace("-", "−"))) == n


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e290, max_value=1e290))
def test_floats_are_read_back(value: float) -> None:
    assert read_gold(value) == value
    for text in (repr(value), f"{value:.17e}"):
        gold = read_gold(text)
        assert gold is not None
        assert float(gold) == value


@given(st.fractions(-1000, 1000, max_denominator=97), notations)
def test_fractions_are_read_back(value: Fraction, around: str) -> None:
    top, bottom = value.numerator, value.denominator
    assert read_gold(around.format(f"{top}/{bottom}")) == float(value)
    assert read_gold(around.format(rf"\frac{{{top}}}{{{bottom}}}")) == float(value)
    whole, rest = divmod(abs(top), bottom)
    if whole and rest:
        sign = "-" if top < 0 else ""
        assert read_gold(around.format(f"{sign}{whole} {rest}/{bottom}")) == float(value)
    assert read_gold(value) == float(value)


@given(st.text(st.sampled_from("0123456789,. -−/:%$e\\{}()x^½ab"), max_size=12) | st.text())
def test_whatever_else_is_written_ends_in_a_number_or_a_sentence(text: str) -> None:
    try:
        gold = read_gold(text)
    except ProblemError:
        return
    assert isinstance(gold, int | float)
    assert np.isfinite(float(gold))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.int64(21), 21),
        (np.uint8(21), 21),
        (np.float32(21), 21),
        (np.float16(0.1), 0.1),
        (np.float32(0.1), 0.1),
        (np.longdouble(2.5), 2.5),
        (np.array(21), 21),
        (np.str_("3/4"), 0.75),
        (pd.Series([21]).iloc[0], 21),
        (pd.array([21], dtype="Int64")[0], 21),
        (Decimal("0.10"), 0.1),
        (Decimal(21), 21),
        (Fraction(21), 21),
        (Fraction(3, 4), 0.75),
        (torch.tensor(21), 21),
        (torch.tensor(2.5), 2.5),
        (torch.tensor(21.0, requires_grad=True), 21),
        (12.0, 12),
        (10**299, 10**299),
        (None, None),
        (float("nan"), None),
        (np.float64("nan"), None),
        (np.datetime64("NaT"), None),
        (pd.NA, None),
        (pd.NaT, None),
        (Decimal("nan"), None),
        (torch.tensor(float("nan")), None),
        (np.ma.masked, None),
    ],
)
def test_numbers_of_every_library_become_pythons(given: Any, kept: float | None) -> None:
    answer = Problem("?", given, "a").answer
    assert answer == kept
    assert type(answer) is type(kept)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (True, "a truth value"),
        (np.bool_(True), "a truth value"),
        (torch.tensor(True), "a truth value"),
        (float("inf"), "no number"),
        (np.float32("inf"), "no number"),
        (Decimal("-inf"), "no number"),
        (10**300, "300 digits"),
        (-(10**6000), "300 digits"),
        (1e305, "300 digits"),
        (Decimal("1e999999"), "300 digits"),
        (Decimal("1e-999999"), "too close to 0"),
        (Fraction(1, 10**400), "too close to 0"),
        (1 + 2j, "of type complex"),
        (b"21", "of type bytes"),
        ([21], "of type list"),
        (np.array([21]), "of type ndarray"),
        (torch.tensor([21]), "of type Tensor"),
        (torch.tensor(1.0, device="meta"), "no value"),
        (pd.Series([21, 22]), "of type Series"),
        (pd.Timestamp("2020-01-01"), "of type Timestamp"),
        (object(), "of type object"),
    ],
    ids=name,
)
def test_what_is_no_number_is_refused_when_the_problem_is_made(given: Any, reason: str) -> None:
    with pytest.raises(ProblemError, match=f"The problem 'a' has the answer .*{reason}"):
        Problem("?", given, "a")


def test_problems_are_whole_at_the_door() -> None:
    assert Problem("?", 1, np.int64(7)).id == "7"
    assert Problem("?", "3/4", "a") == Problem("?", 0.75, "a")
    built = word_problems(1)[0]
    assert replace(built, answer="1e1").answer == 10  # type: ignore[arg-type]
    for id in (None, 1.5, True, b"a", 10**5000):
        with pytest.raises(ProblemError, match="id of a problem is"):
            Problem("?", 1, id)
    for text, what in (("\ud800", "half of a character"), ("a\0", "a NUL character")):
        with pytest.raises(ProblemError, match=f"question of the problem 'a'.*{what}"):
            Problem(text, 1, "a")
        with pytest.raises(ProblemError, match=f"id of a problem.*{what}"):
            Problem("?", 1, text)


def test_generated_numbers_are_held_against_gold_ones() -> None:
    assert is_correct("The answer is: 0.75", "3/4")
    assert is_correct("The answer is: 50%", "50%")
    assert is_correct("#### 0.333333", Fraction(1, 3))
    assert not is_correct("The answer is: 12345679", 12345678)
    assert not is_correct("The answer is: 0", "1e-7")
    assert is_correct("The answer is: 0.0000001", "1e-7")
    assert is_correct("The answer is: 0", 0.1 + 0.2 - 0.3)
    assert not is_correct("The answer is: " + "9" * 310, 10)
    assert parse_answer("3/4") == 4, "generated text keeps its loose parser"
    with pytest.raises(ProblemError, match="no answer to compare with"):
        is_correct("4", None)

"""Results of reference chains among decoded tokens, also the authors' own 291 problems."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codi_lens.errors import ProblemError
from codi_lens.readout.steps import match_steps, number_of, step_matches, step_results

PRINTED = Path(__file__).parents[3] / "shared" / "data" / "codi_gpt2_decoded_thoughts.json"


@pytest.mark.parametrize(
    ("token", "result", "same"),
    [
        ("9", 9, True),
        (" 9", "9.0", True),
        ("9", np.int64(9), True),
        (".5", 0.5, True),
        (" 1,000", 1000, True),
        ("1000", "1,000.00", True),
        ("−3", -3, True),
        ("1,00", 100, False),
        ("9", 19, False),
        ("nine", 9, False),
        ("²", 2, False),
        ("9.", 9, False),
        ("1e3", 1000, False),
        ("", 0, False),
    ],
)
def test_numbers_match_by_value(token: str, result: object, same: bool) -> None:
    assert match_steps([[token]], [result]).tolist() == [[same]]


def test_a_chain_is_read_step_by_step() -> None:
    chain = "<<20*20/100=4>> so <<20-4= 16.0>> and <<1/2=1/2>>"
    assert step_results(chain) == ["4", "16.0", "1/2"]
    rows = [["-", " 4"], [" 16", "1"], ["4", "16"]]
    expected = [[True, False, False], [False, True, False], [True, True, False]]
    assert match_steps(rows, chain).tolist() == expected
    assert match_steps(rows, "").shape == (3, 0)
    assert match_steps([], [4]).shape == (0, 1)
    for odd in ("no step", "<<9>>"):
        with pytest.raises(ProblemError, match="holds no step"):
            match_steps(rows, odd)
    assert number_of(True) is None


def test_the_control_is_another_chain_of_the_same_length() -> None:
    tokens = [[["1"], ["+"], ["2"]], [["3"], ["+"], ["9"]], [["7"], ["+"], ["8"]]]
    chains = ["<<=1>> <<=5>>", "<<=2>> <<=5>>", "<<=7>>"]
    table = step_matches(tokens, chains)

    def row(steps: int, rows: str) -> dict[Any, Any]:
        chosen = table[(table["steps"] == steps) & (table["rows"] == rows)]
        return chosen.to_dict("records")[0]

    both, alone = row(2, "any"), row(1, "even")
    assert (both["found"], both["n"]) == (1, 2), "the last result is the answer, and is left out"
    assert (both["control_found"], both["control_n"]) == (1, 2)
    assert (row(2, "0")["found"], row(2, "odd")["found"]) == (1, 0)
    assert (alone["found"], alone["n"], alone["control_n"]) == (1, 1, 0)
    assert np.isnan(alone["control_share"])
    with pytest.raises(ProblemError, match="3 problems and 1 chains"):
        step_matches(tokens, ["<<=1>>"])


@pytest.mark.skipif(not PRINTED.exists(), reason="what the authors printed is not beside the clone")
def test_what_the_authors_printed_is_counted_as_an_independent_count_has_it() -> None:
    records = json.loads(PRINTED.read_text())["records"]
    tokens, chains = [r["top5"] for r in records], [r["cot"] for r in records]
    table = step_matches(tokens, chains)
    found = table[table["rows"] == "any"].to_dict("records")
    counts = {row["steps"]: (row["found"], row["n"]) for row in found}
    assert counts == {
        1: (4, 11),
        2: (109, 123),
        3: (162, 186),
        4: (110, 135),
        5: (34, 60),
        8: (4, 14),
    }
    rows = table[table["rows"].str.isdigit()].groupby("rows")[["found", "control_found"]].sum()
    assert rows["found"].tolist() == [264, 2, 256, 0, 244, 1, 249]
    assert (rows["control_found"] < 20).all(), "by chance little is found"

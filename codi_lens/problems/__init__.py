"""Problems to think about: built-in word problems with known running totals, GSM8K, files.

A `Problem` is a question with an answer: a number, or of another kind (a choice, a boolean, a
text). The built-in `word_problems` also know every operation and every running total, which is what
makes claims about thoughts testable. One parser, `parse_answer`, finds the answer in any generated
text, so that every accuracy means the same thing; a gold number has to be one number as a whole,
and `read_gold` reads it or says why not.
"""

from codi_lens.problems.arguments import Split
from codi_lens.problems.corpora import gsm8k, load_problems, sample_indices
from codi_lens.problems.gold import Number, read_gold
from codi_lens.problems.kinds import Answer, Kind
from codi_lens.problems.operations import (
    MAX_OPERATIONS,
    MAX_TOTAL,
    Operation,
    Reference,
    split_of,
    totals_of,
)
from codi_lens.problems.parsing import answer_span, is_correct, parse_answer
from codi_lens.problems.problem import Problem
from codi_lens.problems.stories import Family
from codi_lens.problems.words import WordProblem, with_one_operand_changed, word_problems

__all__ = [
    "MAX_OPERATIONS",
    "MAX_TOTAL",
    "Answer",
    "Family",
    "Kind",
    "Number",
    "Operation",
    "Problem",
    "Reference",
    "Split",
    "WordProblem",
    "answer_span",
    "gsm8k",
    "is_correct",
    "load_problems",
    "parse_answer",
    "read_gold",
    "sample_indices",
    "split_of",
    "totals_of",
    "with_one_operand_changed",
    "word_problems",
]

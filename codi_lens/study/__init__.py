"""The published study of attention between thoughts, reproduced to its last figure.

Everything here is the study's: the generation view (row i = the loop step that generates thought
i), the mean matrix over problems, its formulas, its thresholds and the names of its JSON fields.
Positions are its integers 0 … n-1, which stand for `ct0` … `ct{n-1}`. What these numbers do and do
not say is the business of `codi_lens.study.measured`.
"""

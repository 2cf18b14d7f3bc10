"""The authors' probe against the independent reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from codi_lens import CodiModel
from codi_lens.errors import CodiLensError, PositionError, ProblemError
from codi_lens.loading.checkpoint import read_checkpoint
from codi_lens.problems import Problem, word_problems
from codi_lens.readout.decode import authors_text, decode_thoughts
from codi_lens.verification.reference import Reference

PROBLEMS = word_problems(4, seed=12)
QUIET: dict[str, Any] = {"progress": False}


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama"])
def test_rows_are_what_the_reference_unembeds_before_the_projection(name: str) -> None:
    model = CodiModel.from_pretrained(name)
    reference = Reference.from_checkpoint(read_checkpoint(name))
    rows = decode_thoughts(model, PROBLEMS, batch_size=4, **QUIET)
    head: Any = reference.language_model.get_output_embeddings()
    for problem in PROBLEMS:
        run = reference.think(problem.question)
        own = rows[rows["problem"] == problem.id]
        assert own["position"].tolist() == ["bot", "ct0", "ct1", "ct2", "ct3", "ct4", "ct5"]
        with torch.no_grad():
            best = head(run.hidden).softmax(-1).topk(5)
        attention = run.attention.mean(dim=(0, 1))
        for i, row in enumerate(own.to_dict("records")[:6]):
            texts = [model.tokenizer.decode([int(token)]) for token in best.indices[i]]
            assert row["tokens"] == texts
            np.testing.assert_allclose(row["probabilities"], best.values[i], atol=1e-4)
            expected = attention[i].topk(5)
            np.testing.assert_allclose(row["attention"], expected.values, atol=1e-4)
            column, n = int(expected.indices[0]), len(run.prompt)
            prompt = [model.tokenizer.decode([token]) for token in run.prompt[:-1]]
            named = [*prompt, "bot"][column] if column < n else f"ct{column - n}"
            assert row["attended"][0] == named
        assert own["answer"].tolist() == [run.answer] * 7


def test_one_head_attends_elsewhere_than_the_mean(tiny_gpt2: CodiModel) -> None:
    run = tiny_gpt2.think([PROBLEMS[0].question], names_filter=lambda name: "pattern" in name)
    rows = decode_thoughts(tiny_gpt2, PROBLEMS[:1], layer=1, head=7, **QUIET)
    pattern = run.cache()["blocks.1.attn.hook_pattern"][0, 7, run.layout.bot + 1]
    best = pattern.topk(5)
    np.testing.assert_allclose(rows["attention"][1], best.values, atol=1e-6)
    assert rows["attended"][1] == [run.tokens[0][i] for i in best.indices]
    with pytest.raises(PositionError, match="layer must be at most 2, not 3"):
        decode_thoughts(tiny_gpt2, PROBLEMS, layer=3, **QUIET)
    with pytest.raises(ProblemError, match="k must be"):
        decode_thoughts(tiny_gpt2, PROBLEMS, k=1000, **QUIET)


def test_every_problem_has_its_own_tokens(tiny_gpt2: CodiModel) -> None:
    """A public analysis once showed the first problem's tokens for every problem."""
    together = decode_thoughts(tiny_gpt2, PROBLEMS, **QUIET)
    apart = [decode_thoughts(tiny_gpt2, [problem], **QUIET) for problem in PROBLEMS]
    for problem, alone in zip(PROBLEMS, apart, strict=True):
        own = together[together["problem"] == problem.id]
        assert own["tokens"].tolist() == alone["tokens"].tolist()
        assert own["attended"].tolist() == alone["attended"].tolist()
    assert len({str(alone["tokens"].tolist()) for alone in apart}) == len(PROBLEMS)


def test_the_text_is_the_authors(tiny_gpt2: CodiModel) -> None:
    rows = decode_thoughts(tiny_gpt2, PROBLEMS[:2], k=2, **QUIET)
    text = authors_text(rows, PROBLEMS[:2], ["<<1+1=2>>", ""])
    lines = text.split("\n")
    first = rows.to_dict("records")[0]
    assert lines[:5] == [
        "Question0...",
        f"{PROBLEMS[0].question}...",
        f"CoT=<<1+1=2>>, Answer={float(PROBLEMS[0].answer or 0)}",
        f"decoded 0th latent's attended tokens (top2): {first['attended']}",
        f"decoded 0th latent (top2): {first['tokens']}",
    ]
    assert lines[17] == f"Model Prediction: {first['answer']}"
    assert lines[18:21] == ["", "", ""]
    assert lines[21] == "Question1..."
    with pytest.raises(ProblemError, match="1 chains for 2 problems"):
        authors_text(rows, PROBLEMS[:2], ["<<1+1=2>>"])
    with pytest.raises(ProblemError, match="hold no problem 'other'"):
        authors_text(rows, [Problem("1 + 1?", 2, "other")])
    with pytest.raises(CodiLensError, match="give what decode_thoughts returns"):
        authors_text(rows.drop(columns="tokens"), PROBLEMS)


def test_columns_of_a_run_have_their_texts(tiny: CodiModel) -> None:
    run = tiny.think([problem.question for problem in PROBLEMS])
    width = run.cache()["hook_embed"].shape[1]
    for row, problem in enumerate(PROBLEMS):
        texts = run.tokens[row]
        assert len(texts) == width
        question = run.span("question")[row]
        assert "".join(texts[question]).strip().endswith(problem.question)
        assert set(texts[: question.start]) <= {""}
        for name in ("ct0", "ct5"):
            assert texts[int(run.index(name)[row])] == name
        answer = run.span("answer")[row]
        written = "".join(texts[answer.start : answer.start + 4])
        assert run.answers[row].strip().startswith(written.strip()[:6])

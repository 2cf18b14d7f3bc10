"""Python calls for `fuzz.py`: public functions with good arguments, of which one or two are odd."""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

import codi_lens as cl
from codi_lens import plots, problems

ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 3, 99, 0.5, -0.5, 1e9, 10**30, 10**5000, float("nan"), float("inf")),
    *("", " ", "x", "\0", "\udcff", "9" * 5000, "ct0", "ct99", "answer", "L0H0", "mean", b"x"),
    *([], (), {}, set(), [None], [1], [""], ["x", 1], {"a": 1}, [[]], [(0, 0)], [(9, 9)], (0, 1)),
    *(np.array([]), np.array(1), np.zeros((2, 2)), np.float32(3), np.int64(2), np.nan, pd.NA),
    *(torch.tensor(1), torch.empty(0), torch.zeros(3, 3), torch.zeros(2, device="meta"), 1j),
    *(Decimal("1.5"), Decimal("NaN"), Fraction(1, 3), Path("nowhere"), range(3), object(), int),
    *(pd.DataFrame(), xr.DataArray(1.0), pd.Series([1]), lambda: None),
)


def near(rng: random.Random, value: Any) -> Any:
    """An odd value of the same kind as a good one, or one of any other kind."""
    made: list[Any] = []
    if isinstance(value, pd.DataFrame) and len(value):
        column = str(rng.choice(list(value)))
        made += [value.drop(columns=column), value.iloc[:0], value.iloc[:1], value[::-1]]
        made += [_filled(value, column, np.nan), _filled(value, column, "x")]
        made += [pd.concat([value, value])]
    elif isinstance(value, xr.DataArray) and value.ndim:
        dim = rng.choice([str(each) for each in value.dims])
        made += [value.isel({dim: 0}), value.isel({dim: []}), value.isel({dim: [0]})]
        made += [value.isel({dim: slice(None, None, -1)}), value.rename({dim: "other"})]
        made += [
            value * np.nan,
            value.values,
            value.transpose(),
            value.drop_vars(dim, errors="ignore"),
        ]
        made += [value - 1, value.astype(int), value.isel({dim: [0, 0]})]
    elif isinstance(value, torch.Tensor):
        made += [value[..., :1], value[:0], value * torch.nan, value.to(torch.int64)]
        made += [value.to("meta"), value.to_sparse(), value.double(), value.numpy(), value.tolist()]
    elif isinstance(value, list | tuple) and value:
        made += [value[0], [], [*value, *value], [*value, None], iter(value), set(map(str, value))]
        made += [{each: each for each in map(str, value)}, [*value[:-1], "x"], list(value[:1])]
    elif isinstance(value, str):
        made += [value.upper(), f"{value} ", [value], [value, value], f"{value},{value}"]
    elif isinstance(value, int):
        made += [-value, value + 100, float(value), str(value), np.int32(value), [value]]
    return rng.choice(made) if made and rng.random() < 0.6 else rng.choice(ODD)


class Calls:
    """Public functions and good arguments for each, made when the first is drawn."""

    def draw(self, rng: random.Random, scratch: Path) -> tuple[Callable[[], object], str]:
        """One call, and how to show it."""
        name = rng.choice(sorted(self.known))
        function, good = self.known[name]
        given = dict(good)
        if "out" in given:
            given["out"] = scratch / "out"
        odd = {
            each: near(rng, given[each])
            for each in rng.sample(sorted(given), min(len(given), rng.choice((1, 1, 1, 2))))
        }
        told = ", ".join(f"{each}={_shown(value)}" for each, value in odd.items())
        return partial(function, **given | odd), f"{name}({told})"

    @cached_property
    def known(self) -> dict[str, tuple[Callable[..., object], dict[str, Any]]]:
        """By name: the function, and arguments that it takes."""
        torch.set_num_threads(1)
        model = cl.CodiModel.from_pretrained("tiny-gpt2")
        some = problems.word_problems(3, seed=1)
        attention = cl.extract(model, some, max_new_tokens=16, progress=False)
        heads = cl.rank_heads(attention, n_resamples=20)
        running = {"max_new_tokens": 4, "progress": False}
        given: dict[str, Any] = {"model": model, "problems": some, "seed": 0}
        swept = cl.sweep_heads(model, some, [(0, 0), (1, 1)], progress=False, max_new_tokens=16)
        known: dict[str, tuple[Callable[..., object], dict[str, Any]]] = {
            "word_problems": (problems.word_problems,
                              {"n": 3, "seed": 0, "split": "test", "n_operations": [1, 2]}),
            "Problem": (problems.Problem, {"question": "1 + 1?", "answer": 2, "id": "a",
                                           "kind": "number", "choices": None, "steps": ()}),
            "read_gold": (problems.read_gold, {"answer": "3/4"}),
            "is_correct": (problems.is_correct, {"text": "It is 3.", "answer": 3,
                                                 "kind": "number", "choices": None}),
            "parse_answer": (problems.parse_answer, {"text": "It is (B).", "kind": "choice",
                                                     "choices": {"A": "x", "B": "y"}}),
            "load_problems": (problems.load_problems, {"path": "nowhere.json", "question": None,
                                                       "answer": None, "kind": None}),
            "operand_pairs": (cl.operand_pairs, {"n": 2, "seed": 0, "n_operations": 2}),
            "from_pretrained": (cl.CodiModel.from_pretrained,
                                {"source": "tiny-gpt2", "n_thoughts": 6, "device": "cpu",
                                 "dtype": "float32", "lora_alpha": 64, "remove_eos": True}),
            "open_attention": (cl.open_attention, {"path": "nowhere.zarr"}),
            "extract": (cl.extract, {"model": model, "problems": some[:1], "out": None,
                                     "batch_size": 2, "max_new_tokens": 2, "interventions": []}),
            "extract_scores": (cl.extract_scores,
                               {"model": model, "problems": some[:1], "out": None, "source": None,
                                "max_new_tokens": 2}),
            "open_scores": (cl.open_scores, {"path": "nowhere.zarr"}),
            "rank_heads": (cl.rank_heads, {"attention": attention, "view": "position",
                                           "n_resamples": 20, "level": 0.95, "seed": 0}),
            "thought_view": (cl.thought_view, {"attention": attention}),
            "generation_view": (cl.generation_view, {"attention": attention}),
            "run_study": (cl.run_study, {"attention": attention, "model": "m",
                                         "thresholds": cl.StudyThresholds()}),
            "score_vs_effect": (cl.score_vs_effect, {"heads": heads, "effects": swept,
                                                     "metrics": ["hub", "flow"], "seed": 0}),
            "sweep_heads": (cl.sweep_heads, given | running | {
                "heads": [(0, 0)], "mode": "zero", "at": "thoughts", "out": None}),
            "compare_interventions": (cl.compare_interventions, given | running | {
                "arms": {"a": cl.ablate_heads([(0, 0)], "zero")}, "out": None}),
            "sweep_layers": (cl.sweep_layers, given | running | {
                "at": "ct0", "component": "resid_pre", "mode": "zero"}),
            "dose_response": (cl.dose_response, given | running | {
                "ranking": [(0, 0), (0, 1), (1, 0)], "ks": [1], "n_random": 2, "mode": "zero"}),
            "attribute_heads": (cl.attribute_heads, given | {
                "progress": False, "mode": "zero", "at": "thoughts", "method": "patching"}),
            "think": (model.think, {"questions": ["1 + 1?"], "max_new_tokens": 2,
                                    "thoughts": torch.zeros(1, 6, model.lens.cfg.d_model),
                                    "answers": ["2"], "ids": ["a"], "interventions": [],
                                    "kind": "number"}),
            "verify": (model.verify, {"problems": some[:1], "n": 1, "settings": False,
                                      "max_new_tokens": 2}),
            "head_map": (plots.head_map, {"heads": heads, "metric": "hub"}),
            "top_heads": (plots.top_heads,
                          {"attention": attention.mean("problem"), "heads": heads}),
            "pattern": (plots.pattern, {"attention": attention, "layer": 0, "head": 1}),
            "causal_map": (plots.causal_map, {"effects": swept}),
        }  # fmt: skip
        for name, good in self._interventions(model).items():
            known[name] = (partial(_apply, model, getattr(cl, name)), good)
        return known

    def _interventions(self, model: cl.CodiModel) -> dict[str, dict[str, Any]]:
        direction = torch.ones(model.lens.cfg.d_model)
        where = {"heads": [(0, 0), (1, 1)], "at": "thinking"}
        return {
            "ablate_heads": where | {"mode": "zero", "seed": 0},
            "keep_heads": where | {"mode": "zero", "seed": 0},
            "scale_heads": where | {"factor": 2},
            "knock_out": {"queries": "ct2", "keys": ["ct0"], "heads": [(0, 0)]},
            "force_hub": {"position": "ct0", "share": 0.5, "heads": [(0, 0)], "at": "ct2"},
            "swap_columns": {"a": "ct0", "b": "ct1", "heads": [(0, 0)]},
            "freeze_patterns": {"heads": [(0, 0)], "at": "thinking"},
            "patch_thoughts": {"which": "ct1", "mode": "noise", "seed": 0},
            "steer_thoughts": {"direction": direction, "scale": 1.0, "which": "ct1"},
            "truncate_thoughts": {"k": 3},
            "reorder_thoughts": {"order": ["ct1", "ct0", "ct2", "ct3", "ct4", "ct5"]},
            "patch_residual": {"layer": 0, "at": "ct1", "source": "zero", "component": "mlp_out"},
        }


def _apply(model: cl.CodiModel, make: Callable[..., Any], **given: Any) -> None:
    model.think(["1 + 1?", "2 + 2?"], interventions=[make(**given)], max_new_tokens=2)


def _filled(table: pd.DataFrame, column: str, value: Any) -> pd.DataFrame:
    changed = table.copy()
    changed[column] = value
    return changed


def _shown(value: object) -> str:
    if isinstance(value, pd.DataFrame | xr.DataArray | np.ndarray | torch.Tensor):
        return f"{type(value).__name__}{tuple(value.shape)}"
    try:
        return repr(value)[:60]
    except ValueError:  # more digits than Python prints
        return type(value).__name__

"""The tuned lens: an affine map for each layer that makes its states speak as the last layer's do.

The logit lens takes for granted that every layer writes in the basis of the last one. A tuned lens
learns where that fails: layer by layer, an affine map from the identity on, fitted so that norm and
unembedding give the distribution that the model ends with. It is fitted to what the model will say,
not to known values; what it reads early is what is already settled there, not what is used.

Source: Belrose et al. 2023, "Eliciting Latent Predictions from Transformers with the Tuned Lens".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from codi_lens.errors import CheckpointError, PositionError, ProblemError, as_path, whole_number
from codi_lens.loading.fingerprint import fingerprint
from codi_lens.loading.loaded import Loaded
from codi_lens.model import CodiModel
from codi_lens.outputs import in_place_of
from codi_lens.positions import Scope
from codi_lens.problems.arguments import check_seed
from codi_lens.problems.problem import Problem, Problems, check_problems
from codi_lens.readout.batches import itself, read_batches
from codi_lens.readout.fitting import Fit, fit_translators
from codi_lens.readout.states import position_labels
from codi_lens.thinking.given import check_model, problems_for
from codi_lens.thinking.prompts import positions_in

FEWEST = 10
"""Problems that are needed: a fifth of them stops the training, another fifth measures it."""


@dataclass(frozen=True, eq=False)
class TunedLens:
    """An affine map for each layer, for `logit_lens(…, translator=…)`.

    Attributes:
        weights: of each layer but the last, whose map is the identity.
        biases: of the same layers.
        fingerprint: of the model that it belongs to.
        training: one row per layer: `layer`; `logit_lens` and `tuned_lens`, the mean Kullback-
            Leibler divergence in nats from the final distribution on held-out problems that played
            no part in training; `n_problems` and `n_states` of these; `epoch`, after which the map
            was taken (0: the identity was never improved on).
    """

    weights: Float[Tensor, "map d_model d_model"]
    biases: Float[Tensor, "map d_model"]
    fingerprint: str
    training: pd.DataFrame

    def translate(
        self, layer: int, states: Float[Tensor, "row d_model"]
    ) -> Float[Tensor, "row d_model"]:
        """States as if after the last block.

        Raises:
            PositionError: a layer that the model does not have, or states of another width.
        """
        n_layers = len(self.weights) + 1
        whole_number("layer", layer, high=n_layers - 1, error=PositionError)
        if states.shape[-1] != self.weights.shape[-1]:
            raise PositionError(
                f"The tuned lens is for states of width {self.weights.shape[-1]}, not "
                f"{states.shape[-1]}; it belongs to another model."
            )
        if layer == n_layers - 1:
            return states
        weight, bias = (each[layer].to(states.device) for each in (self.weights, self.biases))
        precise = torch.promote_types(states.dtype, weight.dtype)
        made = torch.addmm(bias.to(precise), states.to(precise), weight.to(precise).T)
        return made.to(states.dtype)

    def save(self, path: str | Path) -> Path:
        """Write it as one safetensors file, with the model's fingerprint in the metadata.

        Raises:
            OutputError: no path.
        """
        path = as_path("The file of a tuned lens", path)
        metadata = {
            "kind": _KIND,
            "fingerprint": self.fingerprint,
            "training": json.dumps(self.training.to_dict("records")),
        }
        tensors = {"weights": self.weights.contiguous(), "biases": self.biases.contiguous()}
        with in_place_of(path) as partial:
            save_file(tensors, partial, metadata)
        return path


_KIND = "codi_lens tuned lens 1"


def train_tuned_lens(
    model: CodiModel,
    problems: Problems,
    *,
    at: Scope | None = None,
    learning_rate: float = 1e-3,
    max_epochs: int = 100,
    patience: int = 5,
    rows_at_once: int = 64,
    batch_size: int = 8,
    max_new_tokens: int = 64,
    seed: int = 0,
    progress: bool = True,
) -> TunedLens:
    """Fit a tuned lens to the states of a model's runs.

    Problems, not states, are split: three fifths train, one fifth stops the training of a layer
    whose divergence no longer falls, one fifth measures what `TunedLens.training` reports. The
    states lie in memory: 4 bytes × layers × width for each, 130 KB at the shape of LLaMA-3.2-1B.

    Args:
        model: the model; its weights are neither changed nor given gradients.
        problems: at least 10; a few hundred states are the least that pays off.
        at: the positions whose states are fitted, by name; by default all but the question.
        learning_rate: of Adam.
        max_epochs: most passes over the training states.
        patience: epochs without improvement of any layer after which training ends.
        rows_at_once: states per step.
        batch_size: problems of median length per forward pass.
        max_new_tokens: longest answer.
        seed: of the split and of the order of states.
        progress: show progress bars.

    Raises:
        ProblemError: fewer than 10 problems, or a number out of range.
        PositionError: a position that does not exist, or a model of one layer.

    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> lens = train_tuned_lens(model, word_problems(40), max_epochs=4, progress=False)
    >>> (lens.training["tuned_lens"] < lens.training["logit_lens"]).tolist()
    [True, True]
    """
    problems = problems_for(model, problems, "train on")
    check_problems(problems, "train on", batch_size=batch_size)
    for name, value in (
        ("max_epochs", max_epochs),
        ("patience", patience),
        ("rows_at_once", rows_at_once),
    ):
        whole_number(name, value, 1, error=ProblemError)
    if len(problems) < FEWEST:
        raise ProblemError(
            f"A tuned lens needs {FEWEST} problems or more, not {len(problems)}; two fifths of "
            "them are held out."
        )
    if model.lens.cfg.n_layers < 2:
        raise PositionError("A model of one layer has nothing to translate.")
    draw = np.random.default_rng(check_seed(seed))
    part = np.arange(len(problems)) * 5 // len(problems)  # 0 measures, 1 stops, 2..4 train
    part = np.minimum(draw.permutation(part), 2)
    at = positions_in(model, "all")[1:] if at is None else at
    states, owner = _states(model, problems, at, batch_size, max_new_tokens, progress)
    held, stops, trains = (states[part[owner] == which] for which in range(3))
    fit = Fit(learning_rate, max_epochs, patience, rows_at_once, seed, progress)
    fitted = fit_translators(model, trains, stops, held, fit)
    training = pd.DataFrame(
        {
            "layer": range(len(fitted.weights)),
            "logit_lens": fitted.before,
            "tuned_lens": fitted.after,
            "n_problems": int((part == 0).sum()),
            "n_states": len(held),
            "epoch": fitted.epochs,
        }
    )
    return TunedLens(fitted.weights, fitted.biases, model.fingerprint(), training)


def load_tuned_lens(path: str | Path, model: Loaded) -> TunedLens:
    """Read what `TunedLens.save` wrote, for the model that it was trained on.

    Raises:
        CheckpointError: no such file, another kind of file, or one of another model.

    >>> import tempfile
    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> lens = train_tuned_lens(model, word_problems(10), max_epochs=1, progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again = load_tuned_lens(lens.save(f"{folder}/lens.safetensors"), model)
    >>> again.training.equals(lens.training), bool((again.weights == lens.weights).all())
    (True, True)
    """
    check_model(model)
    path = as_path("The file of a tuned lens", path, CheckpointError)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}).") from error
    if metadata.get("kind") != _KIND:
        raise CheckpointError(f"{path} holds no tuned lens; give a file that TunedLens.save wrote.")
    own = fingerprint(model)
    if metadata["fingerprint"] != own:
        raise CheckpointError(
            f"{path} is the tuned lens of the model {metadata['fingerprint']}, not of this one, "
            f"{own}; train one for it with train_tuned_lens."
        )
    training = pd.DataFrame(json.loads(metadata["training"]))
    device = model.device
    return TunedLens(tensors["weights"].to(device), tensors["biases"].to(device), own, training)


def _states(
    model: CodiModel,
    problems: Sequence[Problem],
    at: Scope,
    batch_size: int,
    max_new_tokens: int,
    progress: bool,
) -> tuple[Float[Tensor, "state layer d_model"], Int[np.ndarray, " state"]]:
    """The states after every layer at the named positions, and the problem of each."""
    names = [f"blocks.{layer}.hook_resid_post" for layer in range(model.lens.cfg.n_layers)]
    states: list[list[Tensor]] = [[] for _ in problems]
    for batch, run in read_batches(
        itself,
        model,
        problems,
        names,
        "collecting states",
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        progress=progress,
    ):
        cache = run.cache()
        layers = torch.stack([cache[name].detach() for name in names], dim=2)
        for row, i in enumerate(batch):
            columns = position_labels(run, at, row, layers.shape[1]).values()
            # A set: the anchor is a token of the answer too.
            states[i].append(layers[row, sorted(set(columns))])
    each = [torch.cat(own) for own in states]
    owner = np.repeat(np.arange(len(problems)), [len(own) for own in each])
    return torch.cat(each), owner

"""How the maps of a tuned lens are fitted: Adam on the divergence from the final distribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from codi_lens.loading.loaded import Loaded
from codi_lens.readout.states import AT_ONCE


@dataclass(frozen=True)
class Fit:
    """Settings of a fit; see `train_tuned_lens`."""

    learning_rate: float
    max_epochs: int
    patience: int
    rows_at_once: int
    seed: int
    progress: bool


@dataclass(frozen=True, eq=False)
class Fitted:
    """What came of it.

    Attributes:
        weights, biases: the maps of every layer but the last.
        before, after: divergence in nats on held-out states, of the identity and of the maps.
        epochs: after which each map was taken; 0 where the identity was never improved on.
    """

    weights: Float[Tensor, "map d_model d_model"]
    biases: Float[Tensor, "map d_model"]
    before: Float[np.ndarray, " map"]
    after: Float[np.ndarray, " map"]
    epochs: Int[np.ndarray, " map"]


def fit_translators(
    model: Loaded,
    trains: Float[Tensor, "train layer d_model"],
    stops: Float[Tensor, "stop layer d_model"],
    held: Float[Tensor, "held layer d_model"],
    fit: Fit,
) -> Fitted:
    """Fit one affine map per layer, and keep of each the one that was best on `stops`.

    Args:
        model: whose norm and unembedding read the states; it gets no gradients.
        trains: states after every layer, the last among them.
        stops: that say when to stop.
        held: that measure the result.
        fit: settings.
    """
    n_layers, width = trains.shape[1] - 1, trains.shape[2]
    precise = torch.promote_types(trains.dtype, torch.float32)
    # Rows are states, so a map is kept transposed while it is fitted.
    eye = torch.eye(width, dtype=precise, device=trains.device)
    maps = [
        (eye.clone().requires_grad_(), torch.zeros_like(eye[0]).requires_grad_())
        for _ in range(n_layers)
    ]
    optimizer = torch.optim.Adam([each for pair in maps for each in pair], lr=fit.learning_rate)
    draw = torch.Generator().manual_seed(fit.seed)
    best = divergences(model, stops, maps)
    kept, epochs = _copy(maps), np.zeros(n_layers, dtype=int)
    before = divergences(model, held, maps)
    with tqdm(total=fit.max_epochs, desc="fitting", unit="epoch", disable=not fit.progress) as bar:
        for epoch in range(1, fit.max_epochs + 1):
            for rows in torch.randperm(len(trains), generator=draw).split(fit.rows_at_once):
                _step(model, trains[rows], maps, optimizer)
            now = divergences(model, stops, maps)
            for layer in np.flatnonzero(now < best):
                kept[layer], epochs[layer] = _copy([maps[layer]])[0], epoch
            best = np.minimum(now, best)
            bar.set_postfix(nats=f"{best.mean():.3f}")
            bar.update()
            if epoch - epochs.max() >= fit.patience:
                break
    weights = torch.stack([weight.T for weight, _ in kept])
    biases = torch.stack([bias for _, bias in kept])
    return Fitted(weights, biases, before, divergences(model, held, kept), epochs)


Maps = list[tuple[Tensor, Tensor]]


@torch.no_grad()
def divergences(
    model: Loaded, states: Float[Tensor, "state layer d_model"], maps: Maps
) -> Float[np.ndarray, " map"]:
    """Mean divergence of each translated layer from the last one, in nats."""
    rows = max(1, AT_ONCE // model.lens.cfg.d_vocab_out)
    total = np.zeros(len(maps))
    for some in states.split(rows):
        final = _log_probs(model, some[:, -1])
        for layer, pair in enumerate(maps):
            total[layer] += float(_divergence(model, some[:, layer], pair, final).sum())
    return total / len(states)


def _step(
    model: Loaded,
    states: Float[Tensor, "state layer d_model"],
    maps: Maps,
    optimizer: torch.optim.Optimizer,
) -> None:
    """One step of every layer; the model's own weights get no gradient."""
    with torch.no_grad():
        final = _log_probs(model, states[:, -1])
    with torch.enable_grad():
        for layer, pair in enumerate(maps):
            loss = _divergence(model, states[:, layer], pair, final).mean()
            pair[0].grad, pair[1].grad = torch.autograd.grad(loss, pair)
    optimizer.step()


def _divergence(
    model: Loaded,
    states: Float[Tensor, "state d_model"],
    pair: tuple[Tensor, Tensor],
    final: Float[Tensor, "state vocab"],
) -> Float[Tensor, " state"]:
    weight, bias = pair
    made = torch.addmm(bias, states.to(bias.dtype), weight).to(states.dtype)
    read = _log_probs(model, made)
    return (final.exp() * (final - read).nan_to_num(0.0)).sum(-1)


def _log_probs(
    model: Loaded, states: Float[Tensor, "state d_model"]
) -> Float[Tensor, "state vocab"]:
    logits = model.lens.unembed(model.lens.ln_final(states[None]))[0]
    return logits.float().log_softmax(-1)


def _copy(maps: Maps) -> Maps:
    return [(weight.detach().clone(), bias.detach().clone()) for weight, bias in maps]

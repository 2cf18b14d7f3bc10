"""Problems that a model thinks about, or an earlier extraction holds, streamed into a store."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from jaxtyping import Bool, Int

from codi_lens.attention.blocks import BLOCK, Blocks, Values
from codi_lens.attention.opening import WEIGHTED, open_attention, store_in
from codi_lens.attention.store import without_gold
from codi_lens.attention.strips import STRIP, as_kept, open_strips
from codi_lens.errors import AttentionError, OutputError, as_path, check_flags, shown
from codi_lens.interventions.donors import Donors
from codi_lens.interventions.giving import with_donors
from codi_lens.model import CodiModel
from codi_lens.positions import key_names, query_names
from codi_lens.problems.problem import Problem, Problems, check_problems
from codi_lens.stand_ins import moved
from codi_lens.thinking.given import problems_for
from codi_lens.thinking.hook_names import NamesFilter, hooked_names
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.plan import Planned, as_interventions
from codi_lens.thinking.prompts import batch_room, batches_by_tokens, prepare_problems, questions_of
from codi_lens.thinking.run import ThoughtRun
from codi_lens.work import Stage
from codi_lens.workers.cluster import each_done
from codi_lens.workers.spread import Spread, Workers, spread_of

Source = str | Path
"""The folder of an extraction, or of a command that keeps its attention."""
Found = Mapping[str, Any]
_ANSWER = 8
"""Tokens of a usual answer, which count where a batch is to hold so many."""


@dataclass(frozen=True)
class Extraction:
    """Problems that are thought about once, in the order in which they are kept.

    Attributes:
        model: the model.
        problems: checked.
        prompts: their tokens.
        batch_size: problems of median length per forward pass.
        max_new_tokens: see `CodiModel.think`.
        interventions: alive in every run.
        taken: attention of these problems that is taken, instead of thinking,
        strips: and that to single tokens, if they are to be kept.
        progress: show a progress bar.
        spread: who thinks; what is taken is copied here.
    """

    model: CodiModel
    problems: Sequence[Problem]
    prompts: Sequence[Sequence[int]]
    batch_size: int
    max_new_tokens: int
    interventions: Sequence[Intervention | Planned]
    taken: xr.DataArray | None
    strips: Mapping[str, xr.DataArray] | None
    progress: bool
    spread: Spread

    @classmethod
    def of(
        cls,
        model: CodiModel,
        problems: Problems,
        *,
        batch_size: int,
        max_new_tokens: int,
        interventions: Any,
        source: Source | None,
        weighted: bool = False,
        strips: bool = False,
        progress: bool,
        workers: Workers | None,
        ray_address: str | None,
    ) -> Extraction:
        """Check what is given.

        Args:
            model, problems, batch_size, max_new_tokens, interventions, progress: see above.
            workers, ray_address: see `codi_lens.workers.spread`.
            source: where attention is taken from.
            weighted, strips: whether value-weighted attention, and that to single tokens, is taken.

        Raises:
            ProblemError: no problems, ids that are not unique, or a question that does not fit.
            AttentionError: the model runs in words.
            OutputError: the source holds another model, or lacks some of these problems.
        """
        listed = problems_for(model, problems, "extract")
        check_problems(listed, "extract", batch_size=batch_size, max_new_tokens=max_new_tokens)
        check_flags(progress=progress)
        if model.config.written:
            raise AttentionError(
                "A run in words has as many steps as it writes, so that there is no one set of "
                "rows for many; model.explain(questions).attention has those of a batch."
            )
        spread = spread_of(workers, ray_address)
        acting = as_interventions(interventions)
        if acting:  # those that name no donors draw them among all the problems
            donors = Donors(model, listed, batch_size=int(batch_size))
            acting = [with_donors(each, donors) for each in acting]
        prompts = [array("i", each) for each in prepare_problems(model, listed)]  # a tenth of lists
        sizes = int(batch_size), int(max_new_tokens)
        asked = cls(model, listed, prompts, *sizes, acting, None, None, progress, spread)
        if source is None:
            return asked
        taken = taken_from(source, asked.settings, weighted)
        kept = open_strips(source) if strips else None
        return replace(asked, taken=taken, strips=kept, spread={})

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What decides the values, and the model's name."""
        return {
            "model": self.model.config.source,
            "fingerprint": self.model.fingerprint(),
            "n_thoughts": self.model.config.n_thoughts,
            "max_new_tokens": self.max_new_tokens,
            "hooks": hooked_names(self.model.lens),
            "interventions": [intervention.name for intervention in self.interventions],
            "questions": [
                [each.id, each.question, each.answer, *each.form.told] for each in self.problems
            ],
        }

    @property
    def labels(self) -> dict[str, Iterable[Any]]:
        """Of every dimension of attention."""
        cfg, n_thoughts = self.model.lens.cfg, self.model.config.n_thoughts
        return {
            "problem": [each.id for each in self.problems],
            "layer": range(cfg.n_layers),
            "head": range(cfg.n_heads),
            "query": query_names(n_thoughts),
            "key": key_names(n_thoughts),
        }

    def shape(self, dims: Sequence[str]) -> tuple[int, ...]:
        """How many labels these dimensions have."""
        labels = self.labels
        return tuple(len(list(labels[dim])) for dim in dims)

    def fill(
        self, blocks: Blocks, keep: Callable[[ThoughtRun], Found], names_filter: NamesFilter = None
    ) -> None:
        """Run, or take, what is not done.

        Args:
            blocks: of a store of these problems.
            keep: what the store keeps of each problem of a run, under the names of its arrays.
            names_filter: which activations `keep` needs.
        """
        n, done = len(self.problems), int(blocks.done.sum())
        stage = Stage("thinking", len(self.interventions))
        with stage.bar(n, "problem", shown=self.progress, done=done) as tell:
            heard = int if self.spread else tell  # of workers only whole blocks are heard
            job = partial(self._fill, blocks, keep, names_filter, heard, stage)
            filled = each_done(job, blocks.unfinished(), self.model.device, self.spread)
            with closing(filled):
                for block, found in filled:
                    tell(blocks.settle(block, *found))

    def _fill(
        self,
        blocks: Blocks,
        keep: Callable[[ThoughtRun], Found],
        names_filter: NamesFilter,
        tell: Callable[[int], object],
        stage: Stage,
        block: int,
    ) -> tuple[Bool[np.ndarray, " problem"], Values | None]:
        """Fill a block: what `Blocks.settle` is told of it. `tell` hears of every batch."""
        with blocks.filling(block) as take:
            for batch in self._batches(block):
                if blocks.done[batch].all():
                    continue
                if self.taken is None:
                    cost = len(batch), self._tokens(batch)
                    work = partial(self._kept, batch, keep, names_filter)
                    found, own = stage("", *cost, work)
                    found = found if own else self._instead(found, batch)
                else:
                    found = self._taken(self.taken.isel(problem=batch))
                tell(take(batch, found))
        return blocks.done[block * BLOCK : (block + 1) * BLOCK], blocks.unwritten

    def _batches(self, block: int) -> list[Int[np.ndarray, " problem"]]:
        """The problems of a block, long questions first, as many together as have room.

        They are those of the whole block, so that a resumed extraction gives the same bits; what is
        taken comes at once.
        """
        start = block * BLOCK
        prompts = self.prompts[start : start + BLOCK]
        if self.taken is not None:
            return [np.arange(start, start + len(prompts))]
        return [each + start for each in batches_by_tokens(prompts, self._room, self._needed)]

    @cached_property
    def _room(self) -> float:
        """How many tokens a batch holds, of whichever block."""
        return batch_room(self.prompts, self.batch_size, self._needed)

    @property
    def _needed(self) -> int:
        """How many positions are kept free behind a prompt."""
        return self._beyond + min(self.max_new_tokens, _ANSWER)

    def _tokens(self, batch: Int[np.ndarray, " problem"]) -> int:
        """What a batch feeds to the model before it answers, padding included."""
        return len(batch) * (max(len(self.prompts[i]) for i in batch) + self._beyond)

    @property
    def _beyond(self) -> int:
        """How many positions follow a prompt before the answer."""
        return self.model.config.n_thoughts + len(self.model.config.closing)

    def _taken(self, some: xr.DataArray) -> Found:
        """What a store keeps, of attention that was kept before."""
        found = {"attention": some.values, "answer": [str(text) for text in some["answer"].values]}
        found |= {name: some[name].values for name in WEIGHTED if name in some.coords}
        if self.strips is not None:
            found[STRIP] = as_kept([self.strips[id] for id in some["problem"].values.tolist()])
        return found

    def _instead(self, found: Found, batch: Int[np.ndarray, " problem"]) -> Found:
        """What is kept of another batch, for the problems of this one."""
        made: dict[str, Any] = {
            name: moved(np.asarray(each)[batch % len(each)])
            for name, each in found.items()
            if name != STRIP
        }
        if STRIP in found:
            strip = moved(found[STRIP][0])
            asked = questions_of(self.model, [self.prompts[i] for i in batch])
            made[STRIP] = [np.resize(strip, (len(each), *strip.shape[1:])) for each in asked]
        return made

    def _kept(
        self,
        batch: Int[np.ndarray, " problem"],
        keep: Callable[[ThoughtRun], Found],
        names_filter: NamesFilter,
    ) -> Found:
        return keep(self._run(batch, names_filter))

    def _run(self, batch: Int[np.ndarray, " problem"], names_filter: NamesFilter) -> ThoughtRun:
        return self.model.think(
            questions_of(self.model, [self.prompts[i] for i in batch]),
            max_new_tokens=self.max_new_tokens,
            names_filter=names_filter,
            interventions=self.interventions,
            ids=[self.problems[i].id for i in batch],
            kind=[self.problems[i].form for i in batch],
            fused=True,
        )


def taken_from(source: Source, settings: Mapping[str, Any], weighted: bool) -> xr.DataArray:
    """Attention of an earlier extraction that holds these problems, in their order.

    Args:
        source: its store, or the folder of a command that keeps one.
        settings: of `Extraction`.
        weighted: whether value-weighted attention is needed too.

    Raises:
        OutputError: there is none, it is of another model or of other settings, or lacks problems.
    """
    found, told = open_attention(source), settings_in(source)
    if told["fingerprint"] != settings["fingerprint"]:
        raise OutputError(
            f"{source} holds attention of another model ({told['model']}) than {settings['model']} "
            "as it is loaded here; give the folder of the same model, settings, way and backend."
        )
    for name in ("max_new_tokens", "hooks", "interventions"):
        if told.get(name, []) != settings[name]:
            raise OutputError(
                f"{source} was extracted with {name} {told.get(name, [])}, not {settings[name]}; "
                "give the same, or extract again."
            )
    if weighted and "value_weighted" not in found.coords:
        raise OutputError(
            f"{source} holds no value-weighted attention, which this needs; extract it with "
            "--value-weighted (in Python value_weighted=True)."
        )
    places = {repr(row): place for place, row in enumerate(without_gold(told["questions"]))}
    wanted = without_gold(settings["questions"])
    if lacking := [row[0] for row in wanted if repr(row) not in places]:
        raise OutputError(
            f"{source} lacks {len(lacking)} of these {len(wanted)} problems, {shown(lacking[0])} "
            "first; give problems that it was extracted from."
        )
    chosen = found.isel(problem=[places[repr(row)] for row in wanted])
    return chosen if weighted else chosen.drop_vars([*WEIGHTED], errors="ignore")


def source_of(sources: Sequence[Source], model: CodiModel) -> Source | None:
    """The one of several sources that is of a model; None where none was given.

    Raises:
        OutputError: none of them is.
    """
    own = model.fingerprint()
    found = [each for each in sources if settings_in(each)["fingerprint"] == own]
    if sources and not found:
        raise OutputError(
            f"{' and '.join(map(str, sources))} {'holds' if len(sources) == 1 else 'hold'} no "
            f"attention of {model.config.source} as it is loaded here; give one folder per model."
        )
    return found[0] if found else None


def settings_in(source: Source) -> dict[str, Any]:
    """What a store says of itself.

    Raises:
        OutputError: there is none.
    """
    path = as_path("source", source)
    store = store_in(path)
    if store is None:
        raise OutputError(f"{path} holds no extracted attention.")
    told = dict(zarr.open_group(store, mode="r").attrs)
    if "fingerprint" not in told:
        raise OutputError(f"{path} holds no extracted attention.")
    return told

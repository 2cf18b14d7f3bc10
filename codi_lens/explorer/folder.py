"""What the folder of a command holds, gathered into an explorer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import xarray as xr

from codi_lens.attention.opening import ATTENTION, open_attention, store_in
from codi_lens.attention.strips import strips_in
from codi_lens.errors import AttentionError, OutputError
from codi_lens.explorer.details import Detail, details_of, first_strips, read_details
from codi_lens.explorer.explore import Explorer, explorer_of, heads_by_view
from codi_lens.explorer.lens import lens_rows
from codi_lens.explorer.payload import Told
from codi_lens.outputs import check_folder, read_json, to_json, write_text
from codi_lens.problems.problem import Problem

PAGE = "explorer.html"
DETAILS = "details.npz"
LENS = "lens.csv"
QUESTIONS = "problems.json"
_EFFECTS = {
    "heads.csv": "Effect of ablating",
    "heads_by_position.csv": "Effect of ablating by position",
    "attribution_heads_patching.csv": "Attribution patching",
    "attribution_heads_integrated.csv": "Integrated gradients",
}


def gather(*folders: str | Path) -> Explorer:
    """An explorer of everything about heads that commands left in their folders.

    Attention comes from the first folder that holds any; tables of effects and attributions, and
    what the lens read in the same problems, from all.

    Args:
        folders: of `codi-lens extract`, `analyze`, `ablate`, `patch`, `read`, or `results/MODEL` of
            `study`, all of one model.

    Raises:
        OutputError: no such folder, none that holds attention, or one of another model or that does
            not say of which it is.
    """
    places = [check_folder(folder) for folder in folders]
    kept = {place: open_attention(store) for place in places if (store := store_in(place))}
    if not kept:
        raise OutputError(
            f"{' and '.join(map(str, places))} {'holds' if len(places) == 1 else 'hold'} no "
            f"attention{_elsewhere(places)}; give the folder of codi-lens extract, analyze, ablate "
            "or patch."
        )
    attention = next(iter(kept.values()))
    own = _questions(attention)
    details: dict[str, Detail] = {}
    lenses = []
    effects: dict[str, pd.DataFrame] = {}
    for place in places:
        questions = _questions_of(place, kept.get(place), attention)
        same = [id for id, text in own.items() if questions.get(id) == text]
        if (place / DETAILS).is_file():
            found = read_details(place / DETAILS)
            details |= {id: found[id] for id in same if id in found}
        elif place in kept and (strips := strips_in(place)):
            some = first_strips(kept[place].sel(problem=same), strips)
            details = details_of(kept[place], some, None) | details
        if (place / LENS).is_file():
            rows = read_lens(place / LENS)
            lenses.append(rows[rows["problem"].isin(same)])
        for label, table in _effects_in(place).items():
            effects[f"{label}, {place.name}" if label in effects else label] = table
    model = Path(str(attention.attrs["model"])).name
    return explorer_of(
        attention,
        Told(
            f"Attention among the thoughts of {model}",
            {"Problems": str(attention.sizes["problem"])},
        ),
        heads=heads_by_view(attention, None),
        details=details,
        effects=effects,
        readout=pd.concat(lenses).drop_duplicates() if lenses else None,
    )


def save_beside(folder: Path) -> str | None:
    """Save the explorer of a command's folder in it; the file's name, None if no attention is kept.

    Raises:
        OutputError: see `gather`.
    """
    if store_in(folder) is None:
        return None
    return gather(folder).save(folder / PAGE).name


def read_lens(path: Path) -> pd.DataFrame:
    """The likeliest tokens that a command wrote as CSV; one may read "NA", or be empty space.

    Raises:
        OutputError: it is no such table.
    """
    try:
        return lens_rows(pd.read_csv(path, keep_default_na=False))
    except (ValueError, AttentionError) as error:
        raise OutputError(
            f"{path} is damaged or something else; delete it and run its command again."
        ) from error


def write_questions(path: Path, problems: Sequence[Problem], fingerprint: str) -> None:
    """Keep which problems of which model a folder without attention is about."""
    questions = {problem.id: problem.question for problem in problems}
    write_text(path, to_json({"fingerprint": fingerprint, "questions": questions}))


def _questions_of(
    folder: Path, theirs: xr.DataArray | None, attention: xr.DataArray
) -> dict[str, str]:
    """The problems that a folder is about, by id: those of its attention, if it keeps any.

    Raises:
        OutputError: it does not say, or is of another model than the attention.
    """
    if theirs is not None:
        fingerprint, questions = theirs.attrs.get("fingerprint"), _questions(theirs)
    elif (folder / QUESTIONS).is_file():
        told = read_json(folder / QUESTIONS)
        fingerprint, questions = told.get("fingerprint"), dict(told.get("questions", {}))
    else:
        raise OutputError(
            f"{folder} does not say which model and problems it is of; run its command again."
        )
    if fingerprint != attention.attrs.get("fingerprint"):
        raise OutputError(
            f"{folder} is of another model than the first folder ({attention.attrs['model']}), or "
            "of it in another way of answering; give folders of one model and one way."
        )
    return questions


def _questions(attention: xr.DataArray) -> dict[str, str]:
    ids, texts = (map(str, attention[name].values) for name in ("problem", "question"))
    return dict(zip(ids, texts, strict=True))


def _effects_in(folder: Path) -> Mapping[str, pd.DataFrame]:
    found: dict[str, pd.DataFrame] = {}
    for name, label in _EFFECTS.items():
        if (folder / name).is_file():
            table = pd.read_csv(folder / name)
            if {"effect", "attribution"} & set(table):  # that of analyze holds scores
                found[f"{label}{_mode_of(table)}"] = table
    return found


def _mode_of(table: pd.DataFrame) -> str:
    """The one mode of a sweep, from its arms: "L1H7 resample at thinking"."""
    arms = table["arm"].astype(str).str.split().str[1] if "arm" in table else pd.Series(dtype=str)
    return f" ({arms.iloc[0]})" if arms.nunique() == 1 else ""


def _elsewhere(places: list[Path]) -> str:
    """Where a folder of several models keeps that of each."""
    stores = [each for place in places for each in sorted(place.glob(f"results/*/{ATTENTION}"))]
    found = " and ".join(str(store.parent) for store in stores)
    return f" (but {found} {'does' if len(stores) == 1 else 'do'})" if stores else ""

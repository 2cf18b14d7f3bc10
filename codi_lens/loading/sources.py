"""Where a checkpoint may come from: a folder or file, a model that codi_lens ships, or the hub."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import get_args

from codi_lens.errors import CheckpointError
from codi_lens.problems.stories import Family

_NO_WEIGHTS = (".json", ".txt", ".md", ".py", ".model", ".toml", ".yaml", ".yml")
_PACKAGE = Path(__file__).parents[1]
_PLACES = (_PACKAGE / "checkpoints", _PACKAGE.parent / "checkpoints")
"""Of an installed wheel, and of a checkout, from which the wheel takes them."""


def shipped_models() -> dict[str, Path]:
    """The folders of the small models that come with codi_lens, by name.

    >>> list(shipped_models())
    ['tiny-gpt2', 'tiny-gpt2-plain', 'tiny-llama', 'tiny-recall', 'tiny-recall-control']
    """
    for place in _PLACES:
        found = sorted(place.glob("*/codi_config.json"))
        if found:
            return {path.parent.name: path.parent for path in found}
    return {}


def local_folder(source: str | Path) -> Path | None:
    """The folder of that name, else that of the shipped model; None if it has to be fetched."""
    folder = Path(source)
    return folder if is_folder(folder) else shipped_models().get(str(source))


def named_file(source: str | Path) -> Path | None:
    """The file of weights of that name, if a file and not a folder is meant."""
    file = Path(source)
    is_file = _exists(file) and file.is_file()
    return file if is_file and file.suffix not in _NO_WEIGHTS else None


def files_of(source: str | Path) -> Path | None:
    """Where a local checkpoint's other files are: its folder, or that of its file of weights.

    None where there is neither, as of a hub name.

    >>> files_of("checkpoints/tiny-llama/model.safetensors").name
    'tiny-llama'
    """
    if not str(source).strip("\0 "):
        return None
    file = named_file(source)
    return local_folder(source) if file is None else file.parent


def learnt_family(source: str | Path) -> Family:
    """The family of built-in problems that a local checkpoint learnt, as its codi_config.json says.

    "plain" where it says nothing, or there is no folder.

    >>> learnt_family("tiny-gpt2")
    'plain'
    """
    folder = files_of(source)
    training: object = None
    if folder is not None:
        with suppress(OSError, ValueError, AttributeError):
            text = (folder / "codi_config.json").read_text(encoding="utf-8")
            training = json.loads(text).get("training")
    named = training.get("family") if isinstance(training, dict) else None
    families: dict[object, Family] = {name: name for name in get_args(Family)}
    return families.get(named, "plain") if isinstance(named, str) else "plain"


def check_source(source: str | Path) -> None:
    """Refuse what cannot name a checkpoint, without asking the hub.

    Raises:
        CheckpointError: neither a folder, nor a file of weights, nor a shipped model, nor like the
            name of a repository.
    """
    check_path(source)
    if files_of(source) is not None:
        return
    name = str(source) if str(source).isprintable() else repr(str(source))
    if _exists(source):
        raise CheckpointError(
            f"{name} is a file; give the folder that holds the checkpoint, or its file of weights."
        )
    if not is_hub_name(str(source)):
        raise CheckpointError(
            f"There is no folder {name}, and it is not the name of a model that codi_lens ships "
            f"({', '.join(shipped_models())}) or of a hub repository (owner/name)."
        )


def check_path(path: object) -> None:
    """Refuse what cannot be a path or the name of a repository.

    Raises:
        CheckpointError: not text or a path, empty, not UTF-8, or with a NUL character.
    """
    if not isinstance(path, str | Path):
        raise CheckpointError(
            f"A checkpoint is named by a folder or hub name, not by {type(path).__name__}."
        )
    if _has_surrogates(str(path)):
        raise CheckpointError(
            f"{ascii(str(path))[:200]} is not UTF-8, and the libraries that read checkpoints need "
            "names that are; rename it."
        )
    if not str(path).strip() or "\0" in str(path):
        raise CheckpointError(
            f"{str(path)[:40]!r} cannot name a checkpoint; give a folder, or a hub name "
            "(owner/name)."
        )


def is_folder(path: str | Path) -> bool:
    """Whether a folder is there; False for names that no system takes, which pathlib lets fail."""
    return _exists(path) and Path(path).is_dir()


def is_hub_name(name: str) -> bool:
    """Whether this can name a hub repository.

    >>> is_hub_name("zen-E/CODI-gpt2"), is_hub_name("./model"), is_hub_name("gpt2")
    (True, False, False)
    """
    parts = name.split("/")
    return (
        len(parts) == 2
        and all(parts)
        and name.isprintable()
        and not name.startswith((".", "~", "/"))
    )


def _exists(path: str | Path) -> bool:
    try:
        return Path(path).exists()
    except OSError:
        return False


def _has_surrogates(text: str) -> bool:
    """Whether Python keeps bytes in it that are not UTF-8."""
    return any("\ud800" <= character <= "\udfff" for character in text)

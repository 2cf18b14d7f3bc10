"""The Hugging Face hub: how repositories are fetched, and where their files then lie."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from codi_lens.errors import CheckpointError, as_path, shown
from codi_lens.loading.files import PROJECTIONS, first_line
from codi_lens.loading.sources import check_source, files_of

_SMALL_FILES = ["*.json", "*.model", "*.txt", "prj.pt"]
_WEIGHTS = (["*.safetensors"], ["pytorch_model*.bin", "adapter_model.bin"], ["checkpoint_*"])
"""In order: the next are fetched only from repositories without the ones before."""


@dataclass(frozen=True)
class Hub:
    """How repositories are read, of the checkpoint and of its base.

    The hub's own settings hold beside it: `HF_HOME` places the cache, `HF_HUB_OFFLINE=1` uses it
    alone, `hf auth login` or `HF_TOKEN` opens gated repositories.

    Attributes:
        revision: a branch, tag or commit of the checkpoint's repository.
        token: opens gated and private repositories; True for that of the login, False for none.
        cache_dir: where files are kept, and looked for first.
        offline: whether only files that are there already count.
    """

    revision: str | None = None
    token: str | bool | None = field(default=None, repr=False)
    cache_dir: str | Path | None = None
    offline: bool = False

    def __post_init__(self) -> None:
        """Refuse what is none of that, without a word of the token."""
        if self.revision is not None and not isinstance(self.revision, str):
            raise CheckpointError(
                f"revision must be a branch, tag or commit, not {shown(self.revision)}."
            )
        known = self.token is None or isinstance(self.token, bool)
        if not known and not re.fullmatch(r"[!-~]+", str(self.token)):
            raise CheckpointError(
                "token must be a token of the hub, True for that of `hf auth login`, or False."
            )
        if self.cache_dir is not None:
            as_path("cache_dir", self.cache_dir, CheckpointError)

    @property
    def arguments(self) -> dict[str, Any]:
        """What `from_pretrained` of transformers and `snapshot_download` take."""
        given = {"token": self.token, "cache_dir": self.cache_dir}
        found = {key: value for key, value in given.items() if value is not None}
        return found | ({"local_files_only": True} if self.offline else {})


def resolve_folder(source: str | Path, hub: Hub = Hub()) -> Path:
    """The folder of a checkpoint or of its file, fetched from the hub (or its cache) where needed.

    Pickles are fetched only from repositories without safetensors.

    Args:
        source: a folder, a file of weights, a shipped model, or the name of a hub repository.
        hub: how a repository is read.

    Raises:
        CheckpointError: nothing of that name, or a repository that cannot be fetched.
    """
    check_source(source)
    folder = files_of(source)
    for patterns in _WEIGHTS if folder is None else ():
        folder = _fetch(str(source), hub, _SMALL_FILES + patterns)
        found = (path.name for pattern in patterns for path in folder.glob(pattern))
        if set(found) - set(PROJECTIONS):
            break
    assert folder is not None
    return folder


def _fetch(name: str, hub: Hub, patterns: list[str]) -> Path:
    where = f"{name} (revision {hub.revision})" if hub.revision else name
    try:
        return Path(
            snapshot_download(name, revision=hub.revision, allow_patterns=patterns, **hub.arguments)
        )
    except GatedRepoError as error:
        raise CheckpointError(
            f"{where} is gated: accept its licence on huggingface.co, then run `hf auth login` or "
            "pass token=."
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(
            f"The hub repository {name} has no revision {hub.revision}; give a branch, tag or "
            "commit."
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"There is no folder {name} and no hub repository of that name; if it is private, run "
            "`hf auth login` or pass token=."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise CheckpointError(
            f"There is no folder {name}, and the hub repository {where} could not be fetched "
            f"({first_line(error)}); it must be in the hub's cache (HF_HOME) to load offline."
        ) from error

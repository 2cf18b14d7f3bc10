"""What keeps the tests cheap: models loaded once, and jaxtyping only where there are axes.

Around every call jaxtyping binds the signature to remember axes, which for the many small functions
without arrays costs more than they do. beartype alone checks those.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

import jaxtyping
import pytest
from jaxtyping import config, jaxtyped


def checked(fn: Any = None, *, typechecker: Any) -> Any:
    """What jaxtyping's import hook decorates functions and classes by."""
    if fn is None:
        return functools.partial(checked, typechecker=typechecker)
    if not inspect.isfunction(fn) or may_name_axes(fn):
        return jaxtyped(fn, typechecker=typechecker)
    with_checks = typechecker(fn)

    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        return (fn if config.jaxtyping_disable else with_checks)(*args, **kwargs)

    return run


def may_name_axes(fn: Callable[..., Any]) -> bool:
    """Whether its signature speaks of arrays, or cannot be read yet."""
    try:
        return "jaxtyping." in str(typing.get_type_hints(fn))
    except NameError:  # a name that is imported for pyright alone
        return True


jaxtyping.jaxtyped = checked


@pytest.fixture(scope="session")
def loaded() -> Callable[..., Any]:
    """`CodiModel.from_pretrained`, for those who change no model."""
    from codi_lens import CodiModel

    return functools.cache(CodiModel.from_pretrained)


@pytest.fixture(autouse=True)
def share_models(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All doctests share the models that they load."""
    if isinstance(request.node, pytest.DoctestItem):
        once = request.getfixturevalue("loaded")
        monkeypatch.setattr("codi_lens.model.CodiModel.from_pretrained", once)

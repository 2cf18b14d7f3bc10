"""What keeps the tests cheap: models loaded once, and the types of a call checked once.

jaxtyping alone checks the arguments twice, before a call and again with what it returns, and binds
the signature for its message. beartype does once all that is needed, in a scope of axes.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

import jaxtyping
import pytest
from jaxtyping import config, jaxtyped

AXES = jaxtyped("context")  # what an axis is called holds for all arguments and the result


def checked(fn: Any = None, *, typechecker: Any) -> Any:
    """What jaxtyping's import hook decorates functions and classes by."""
    if fn is None:
        return functools.partial(checked, typechecker=typechecker)
    named = names_axes(fn) if inspect.isfunction(fn) else None
    if named is None or (named and inspect.isgeneratorfunction(fn)):
        return jaxtyped(fn, typechecker=typechecker)
    with_checks = typechecker(fn)
    scope = AXES if named else contextlib.nullcontext()

    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        if config.jaxtyping_disable:
            return fn(*args, **kwargs)
        with scope:
            return with_checks(*args, **kwargs)

    return run


def names_axes(fn: Callable[..., Any]) -> bool | None:
    """Whether its signature speaks of arrays; None if it cannot be read yet."""
    try:
        return "jaxtyping." in str(typing.get_type_hints(fn))
    except NameError:  # a name that is imported for pyright alone
        return None


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

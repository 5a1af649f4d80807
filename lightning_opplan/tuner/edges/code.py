"""The user's code that a result depends on: its names, and whether it has changed since."""

import ast
import hashlib
import inspect
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from inspect import ismodule
from pathlib import Path
from types import CodeType
from typing import Any

__all__ = ["code_hashes", "described"]

_PACKAGE = Path(__file__).resolve().parents[2]


def code_hashes(made_by: Iterable[Any]) -> dict[str, str]:
    """Return a hash of the code of functions and classes, and of what they use of the user's own, by name.

    Comments, docstrings and layout do not count. What is installed as a package does not, nor what has no source.

    Args:
        made_by: Functions, classes, or partial ones of them.
    """
    found: dict[str, str] = {}
    waiting = [_inner(each) for each in made_by]
    done = set()
    while waiting:
        each = waiting.pop()
        if id(each) in done or not _is_of_user(each):
            continue
        done.add(id(each))
        digest = _hash(each)
        if digest is not None:
            found[f"{each.__module__}.{each.__qualname__}"] = digest
            waiting += _used(each)
    return dict(sorted(found.items()))


def described(factory: Callable[..., Any]) -> str:
    """Name a function or class, and the arguments that a `functools.partial` binds."""
    inner = _inner(factory)
    name = f"{inner.__module__}.{inner.__qualname__}" if hasattr(inner, "__qualname__") else type(inner).__qualname__
    bound = [repr(value) for value in getattr(factory, "args", ())]
    bound += [f"{key}={value!r}" for key, value in sorted(getattr(factory, "keywords", {}).items())]
    # An address in memory is another one in the next process.
    return f"{name}({', '.join(text for text in bound if ' at 0x' not in text)})"


def _inner(factory: Any) -> Any:
    if isinstance(factory, property):
        factory = factory.fget
    return getattr(inner := getattr(factory, "func", factory), "__wrapped__", inner)


def _is_of_user(each: Any) -> bool:
    if not (inspect.isclass(each) or inspect.isfunction(each)):
        return False
    try:
        file = Path(inspect.getfile(each)).resolve()
    except (TypeError, OSError):
        return False
    return not any(file.is_relative_to(folder) for folder in (*_installed(tuple(sys.path)), _PACKAGE))


@cache
def _installed(search_path: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the folders of what is installed, wherever it is: a cluster has its packages on PYTHONPATH, too."""
    named = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
    found = [Path(entry) for entry in search_path if any(Path(entry).glob("*.dist-info"))]
    return tuple({folder.resolve(): None for folder in (*named, *found)})


def _hash(each: Any) -> str | None:
    try:
        source = textwrap.dedent(inspect.getsource(each))
    except (OSError, TypeError):
        return None
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a lambda in the middle of a call
        content = " ".join(source.split())
    else:
        content = ast.dump(_without_docstrings(tree))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def _used(each: Any) -> Iterator[Any]:
    """Classes and functions that one names."""
    functions = [each]
    if inspect.isclass(each):
        yield from each.__mro__[1:]
        functions = [_inner(value) for value in vars(each).values() if inspect.isfunction(_inner(value))]
    for function in functions:
        known = {**function.__globals__, **_enclosed(function)}
        names = set(_names(function.__code__))
        for name in names.intersection(known):
            value = known[name]
            # Of a module what is named beside it may be its.
            yield from (vars(value)[each] for each in names & set(vars(value))) if ismodule(value) else [_inner(value)]


def _enclosed(function: Any) -> dict[str, Any]:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # it is not filled yet
            found[name] = cell.cell_contents
    return found


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    yield from code.co_freevars
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)

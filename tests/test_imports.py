"""What importing the package loads, and that every name is where it says."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_opplan
from tests.helpers.scripted import PROJECT

PLANNING = sorted(file.stem for file in (PROJECT / "lightning_opplan" / "planning").glob("[a-z]*.py"))


def printed(code):
    """What a fresh interpreter prints."""
    result = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def loaded(code):
    """Top-level modules that a piece of code loads, those of the standard library aside."""
    before = "import sys\nbefore = set(sys.modules)\n"
    after = "\nprint(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    return {name for name in printed(before + code + after) if name not in sys.stdlib_module_names}


def test_importing_the_package_loads_nothing_else():
    assert loaded("import lightning_opplan") == {"lightning_opplan"}


def test_importing_the_package_is_quick():
    code = "import time\nbegan = time.process_time()\nimport lightning_opplan\nprint(time.process_time() - began)"
    assert min(float(printed(code)[0]) for _ in range(3)) < 0.3


def test_knee_rule_loads_numpy_alone():
    modules = loaded("import lightning_opplan.planning.knee")
    assert modules == {"lightning_opplan", "numpy"}


def test_planning_loads_neither_torch_nor_lightning_nor_pyav():
    modules = loaded("\n".join(f"import lightning_opplan.planning.{name}" for name in PLANNING))
    assert not modules & {"torch", "torchvision", "torchmetrics", "lightning", "av", "scipy", "matplotlib"}


def test_knee_rule_from_the_top_level_loads_no_torch():
    modules = loaded("from lightning_opplan import KneeRule, Search, TransitionGraph, OptimizationPath")
    assert not modules & {"torch", "lightning", "av"}


def test_type_checkers_see_the_same_names_in_the_same_places():
    tree = ast.parse(Path(lightning_opplan.__file__).read_text(encoding="utf-8"))
    imports = next(node for node in tree.body if isinstance(node, ast.If)).body
    seen = {alias.name: node.module for node in imports for alias in node.names}
    places = {name: f"lightning_opplan.{place}" for name, place in lightning_opplan._PLACES.items()}
    assert seen == places
    assert sorted(seen) == sorted(lightning_opplan.__all__)


@pytest.mark.parametrize("name", lightning_opplan.__all__)
def test_every_name_is_there(name):
    assert name in dir(lightning_opplan)
    assert getattr(lightning_opplan, name).__name__ == name


def test_rooms_are_attributes_as_ever():
    for room in lightning_opplan._ROOMS:
        assert getattr(lightning_opplan, room).__name__ == f"lightning_opplan.{room}"
        assert room in dir(lightning_opplan)


def test_unknown_name():
    with pytest.raises(AttributeError, match="has no attribute 'KneeStop'"):
        lightning_opplan.KneeStop  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'KneeStop'"):
        from lightning_opplan import KneeStop  # noqa: F401

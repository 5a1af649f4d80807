"""The notebooks run in short form, and have been run in full."""

import json
import logging
import sys

import matplotlib as mpl
import pytest

from tests.helpers.scripted import PROJECT

SHORT = {
    "01_knee_stopping": "SEEDS, MAX_EPOCHS, PATIENCE = range(2), 15, 2",
    "02_plan_a_classifier": "MAX_EPOCHS_PER_EDGE, BUDGET = 2, 12",
    "03_plan_on_videos": "VIDEOS, TESTED, BUDGET = 4, 1, 12",
}
FOLDER = PROJECT / "examples" / "notebooks"


def cells_of(name):
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]


def code_of(cell):
    return "".join(cell["source"])


def test_all_notebooks_are_tested():
    assert {file.stem for file in FOLDER.glob("*.ipynb")} == set(SHORT)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_notebook_runs(name, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "lightning.pytorch")  # restored afterwards: notebooks quiet it
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["notebook"])
    names = {"__name__": "notebook"}
    with mpl.rc_context({"backend": "agg"}):
        for number, cell in enumerate(cells_of(name)):
            if cell["cell_type"] == "code":
                code = SHORT[name] if "parameters" in cell["metadata"].get("tags", []) else code_of(cell)
                exec(compile(code, f"{name}, cell {number}", "exec"), names)


@pytest.mark.parametrize("name", SHORT)
def test_notebook_can_be_read_without_running_it(name):
    """Every cell that shows something has been run, without an error, and there are pictures."""
    outputs = [output for cell in cells_of(name) for output in cell.get("outputs", [])]
    assert all(cell["execution_count"] for cell in cells_of(name) if cell["cell_type"] == "code")
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert [output for output in outputs if "image/png" in output.get("data", {})]

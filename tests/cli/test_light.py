"""What only reads results starts without what trains."""

import subprocess
import sys

import pytest

from lightning_opplan.cli.light import run_light
from lightning_opplan.cli.light_tools import LIGHT_TOOLS
from lightning_opplan.cli.tools import TOOLS
from tests.helpers.scripted import PROJECT

CODE = """
import sys
from lightning_opplan.cli.light import run_light
assert run_light(sys.argv[1:])
print("heavy:", [name for name in ("torch", "lightning", "av") if name in sys.modules])
"""


@pytest.mark.parametrize("words", [["report"], ["export", "--format", "json"]])
def test_results_are_read_without_torch_and_lightning(searched, words):
    done = subprocess.run(
        [sys.executable, "-c", CODE, *words, str(searched)], cwd=PROJECT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert "heavy: []" in done.stdout


def test_other_commands_are_left_to_the_whole_program():
    assert not run_light([])
    assert not run_light(["--help"])
    assert not run_light(["networks"])
    assert LIGHT_TOOLS.items() <= TOOLS.items(), "and it knows the light ones, too"


def test_wrong_use_ends_in_one_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run_light(["report", str(tmp_path)])
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"opplan: {tmp_path}/journal.jsonl: no journal of a search here.\n"

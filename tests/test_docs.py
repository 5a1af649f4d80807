"""README and documentation: commands are understood, code runs, links lead somewhere."""

import os
import re
import runpy
import shlex
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch
import yaml
from torchvision.models import get_model as image_model

import lightning_opplan
from lightning_opplan.cli import OpplanCLI, main
from lightning_opplan.models import registry
from tests.helpers import toy
from tests.helpers.scripted import PROJECT

DOCS = PROJECT / "docs"
PAGES = {
    str(file.relative_to(PROJECT)): file.read_text(encoding="utf-8")
    for file in sorted([PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *DOCS.rglob("*.md")])
    if "_build" not in file.parts
}
PLAN = {"dirpath": "runs/mine", "monitor": "val/score", "mode": "max"}
TOY = {
    "model": {"class_path": "tests.helpers.toy.Classifier"},
    "data": {"class_path": "tests.helpers.toy.Quadrants"},
    "plan": PLAN,
}
WHOLE = {"docs/tutorial.md"}  # everything on it is run in order
VIDEO = {
    "model": {
        "class_path": "lightning_opplan.VideoClassifier",
        "init_args": {"network": "dg_p3d_tiny", "num_classes": 2},
    },
    "data": {"class_path": "lightning_opplan.VideoDataModule", "init_args": {"root": "videos"}},
    "plan": PLAN,
}


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], flags=re.DOTALL | re.MULTILINE)


def with_blocks(language):
    return [page for page in PAGES if blocks(page, language)]


def commands(page):
    text = "".join(blocks(page, "console"))
    return [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]


@pytest.fixture(autouse=True)
def _as_the_program(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["opplan"])


def in_parts(page, names):
    for number, block in enumerate(blocks(page, "python")):
        exec(compile(block, f"{page}, block {number}", "exec"), names)


def run_callback(page):
    in_parts(page, {"Trainer": lambda callbacks: callbacks})


def run_plans(page):
    in_parts(page, runpy.run_path(str(PROJECT / "examples" / "plan_in_python.py")))
    assert Path("runs/plan/report.html").exists()
    assert Path("runs/budget/control/ensemble.yaml").exists()


def run_network(page):
    names = {"clips": torch.randn(1, 3, 16, 64, 64)}
    in_parts(page, names)
    assert names["scores"].shape == (1, 101)
    assert len(names["heads"]) == 2


def run_results(page):
    for name, seed in (("mine", 0), ("other", 1)):
        tuner = toy.tuner(f"runs/{name}", seed=seed, max_epochs=6)
        tuner.search()
    toy.tuner("runs/mine", max_epochs=6).grid(epochs=(8,))
    in_parts(page, {})
    assert Path("graph.pdf").stat().st_size > 1000


def run_tutorial(page):
    """Everything on the page, in order; its trainings in short."""
    (module,) = blocks(page, "python")
    Path("spirals.py").write_text(module.replace("3000", "300").replace("1000", "100"))
    mine, budget = blocks(page, "yaml")
    Path("mine.yaml").write_text(mine.replace("max_epochs_per_edge: 20", "max_epochs_per_edge: 6"))
    Path("budget.yaml").write_text(budget.replace("epochs: 150", "epochs: 24"))
    sys.path.insert(0, os.getcwd())
    try:
        for command in commands(page):
            words = shlex.split(command)
            if words[0] == "opplan":
                main(words[1:])
    finally:
        sys.path.remove(os.getcwd())
        sys.modules.pop("spirals", None)
    for file in ("path.yaml", "report.html", "follow/weights.ckpt"):
        assert Path("runs/spirals", file).exists()
    assert Path("runs/budget/control/ensemble.yaml").exists()


PYTHON = {
    "README.md": run_callback,
    "docs/budget.md": run_callback,
    "docs/callback.md": run_callback,
    "docs/models/index.md": run_network,
    "docs/python.md": run_plans,
    "docs/results.md": run_results,
    "docs/tutorial.md": run_tutorial,
}


def test_all_python_is_tested():
    assert set(with_blocks("python")) == {*PYTHON, "docs/any_loop.md"}  # which has a test of its own


@pytest.mark.slow
@pytest.mark.parametrize("page", PYTHON)
def test_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "download_image_weights", lambda name: image_model(name).state_dict())
    PYTHON[page](page)


@pytest.mark.parametrize("page", [page for page in with_blocks("yaml") if page not in WHOLE])
def test_yaml_is_a_configuration(page, tmp_path, capsys):
    for block in blocks(page, "yaml"):
        content = yaml.safe_load(block)
        subcommand = "plan" if "plan" in content else "fit"
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**TOY, **content}))
        with pytest.raises(SystemExit) as caught:
            main([subcommand, "--config", str(tmp_path / "mine.yaml"), "--print_config"])
        assert caught.value.code == 0, block
        capsys.readouterr()


@pytest.mark.parametrize("page", [page for page in with_blocks("console") if page not in WHOLE])
def test_commands_are_understood(page, tmp_path, monkeypatch):
    """Parsed, with all that they name, and not run."""
    monkeypatch.chdir(tmp_path)
    for step in ("before_instantiate_classes", "instantiate_classes", "_run_subcommand"):
        monkeypatch.setattr(OpplanCLI, step, lambda *_: None)
    for command in commands(page):
        words = shlex.split(command.partition(" > ")[0], comments=True)
        if words[0] != "opplan":
            continue
        for index, word in enumerate(words[:-1]):
            if word == "--config" and not (PROJECT / words[index + 1]).is_file():
                file = Path(words[index + 1])
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(yaml.safe_dump(VIDEO if page == "docs/data.md" else TOY))
            elif word == "--config":
                words[index + 1] = str(PROJECT / words[index + 1])
        main(words[1:])


def test_targets_and_files_exist():
    makefile = (PROJECT / "Makefile").read_text()
    for page, text in PAGES.items():
        for target in re.findall(r"(?:\$ |`)make (\w+)", text):
            assert f"\n{target}:" in makefile, (page, target)
        for file in re.findall(r"`(?:python )?((?:configs|examples|benchmarks)/[\w./-]+\.\w+)", text):
            assert (PROJECT / file).is_file(), (page, file)


def test_links_of_the_readme_lead_somewhere():
    for page in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", PAGES[page]):
            assert (PROJECT / target).is_file(), (page, target)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built documentation; warnings are errors."""
    pytest.importorskip("sphinx")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(DOCS), str(folder)]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.slow
def test_site_has_every_public_name(site):
    lines = (site / "objects.inv").read_bytes().split(b"\n", 4)
    names = zlib.decompress(lines[4]).decode()
    missing = [name for name in lightning_opplan.__all__ if f"lightning_opplan.{name} " not in names]
    assert not missing


@pytest.mark.slow
def test_first_plan_is_at_most_three_pages_from_the_front(site):
    front = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="tutorial.html"' in front
    assert "opplan plan --config mine.yaml" in re.sub(r"<[^>]*>", "", (site / "tutorial.html").read_text("utf-8"))

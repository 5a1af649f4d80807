"""The loops of docs/any_loop.md do what the page says, on curves whose knee is known."""

import re
import subprocess
import sys

import optuna
import pytest
import torch
from torch import nn

from tests.helpers.scripted import PROJECT

PAGE = (PROJECT / "docs" / "any_loop.md").read_text(encoding="utf-8")
FIRST, PLAIN, HUGGING_FACE, OPTUNA = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
KNEE = 10  # of the curve below, whose derivative is zero between 9 and 10; see `fit_curve`


def curve(epoch, top=0.9):
    return top - 0.8 * 0.7**epoch - 0.0004 * epoch * epoch


class Counting(nn.Module):
    """A network whose one weight is the number of epochs that it was trained for."""

    def __init__(self, top=0.9):
        super().__init__()
        self.top = top
        self.epochs = nn.Parameter(torch.zeros(()))

    def forward(self, x, labels):
        return {"loss": (self.epochs * x.mean()) ** 2, "logits": self.epochs * x}


def train_one_epoch(model):
    with torch.no_grad():
        model.epochs += 1


def validate(model):
    return curve(model.epochs.item(), model.top)


def test_first_lines():
    code = FIRST.replace("decision.stop, ", "print(decision.stop, ").replace("knee_value  #", "knee_value)  #")
    code += "import sys\nprint({'torch', 'lightning', 'av'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=100)
    expected = re.search(r"knee_value  # (.*)", FIRST)[1].replace(",", "")
    assert result.stdout.splitlines() == [expected, "set()"], result.stderr


def test_plain_loop_ends_after_the_patience_with_the_weights_of_the_knee():
    names = {"model": Counting(), "train_one_epoch": train_one_epoch, "validate": validate}
    exec(compile(PLAIN, "any_loop.md", "exec"), names)
    assert names["epoch"] == KNEE + 10
    assert names["model"].epochs.item() == KNEE
    assert len(names["kept"]) < KNEE + 10


@pytest.mark.slow
@pytest.mark.transformers
@pytest.mark.filterwarnings("ignore")
def test_hugging_face_trainer_ends_after_the_patience(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    evaluated = []

    def score(_):
        evaluated.append(len(evaluated) + 1)
        return {"score": curve(evaluated[-1])}

    samples = [{"x": torch.ones(2), "labels": torch.zeros(())}] * 4
    names = {"model": Counting(), "train_set": samples, "val_set": samples, "score": score}
    exec(compile(HUGGING_FACE, "any_loop.md", "exec"), names)
    assert evaluated[-1] == KNEE + 10
    assert names["knee"].decision.knee_epoch == KNEE
    assert (tmp_path / names["weights"]).is_dir()
    assert names["weights"].endswith(f"-{KNEE}")  # a step is an epoch: four samples are one batch


def test_study_prunes_the_worse_and_completes_the_better_at_their_knee():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    made = []

    def make_model(rate):
        tops = (0.8, 0.6, 0.9, 0.7)  # whatever the rate
        made.append(Counting(tops[len(made) % 4]))
        return made[-1]

    names = {"make_model": make_model, "train_one_epoch": train_one_epoch, "validate": validate}
    exec(compile(OPTUNA, "any_loop.md", "exec"), names)
    trials = names["study"].trials
    assert [trial.state.name for trial in trials[:4]] == ["COMPLETE", "PRUNED", "COMPLETE", "PRUNED"]
    assert names["study"].best_trial.number == 2
    assert names["study"].best_value == pytest.approx(curve(KNEE), abs=1e-3)
    assert made[2].epochs.item() == KNEE + 10
    assert made[1].epochs.item() == 14  # as soon as the bound may be asked

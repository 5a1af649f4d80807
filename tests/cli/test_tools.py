"""Subcommands that need neither a model nor data."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger

from lightning_opplan.cli import main
from lightning_opplan.planning.knee import KneeRule
from lightning_opplan.reporting.curve_files import Curve, read_curves
from lightning_opplan.reporting.curve_study import study_curve
from tests.helpers.scripted import rise_and_fall


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["opplan"])
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.chdir(tmp_path)


def fails(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    assert caught.value.code == 1
    return capsys.readouterr().err


def rows_of(text):
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if re.search(r"\d", line)}


def test_networks_are_counted_as_the_paper_has_them(capsys):
    main(["networks", "dg_p3d_resnet50", "--clip_length", "64", "--crop_size", "256"])
    assert rows_of(capsys.readouterr().out)["dg_p3d_resnet50"] == ["50,382,288", "123.42", "3,703"]


def test_network_that_is_not_there_gets_the_closest(capsys):
    assert "Did you mean 'dg_p3d_resnet50'" in fails(capsys, "networks", "dg_p3d_resnet5")


def write_lines(file, *curves):
    file.write_text("".join(json.dumps(curve) + "\n" for curve in curves))
    return str(file)


def test_curves_of_lines_are_fitted_and_drawn(tmp_path, capsys):
    curve = {"id": "a / b", "mode": "max", "values": rise_and_fall(20, 60)}
    constant = {"id": "c", "mode": "max", "values": [0.1] * 30}
    file = write_lines(tmp_path / "curves.jsonl", curve, constant)
    main(["curves", file, "--each", "--out", "all.pdf", "--figures", "each", "--format", "png"])
    out = capsys.readouterr().out
    assert "1 curves do not change and are left out." in out
    assert rows_of(out)["exponential"][0] == "1"
    assert float(rows_of(out)["exponential"][2]) > 0.999
    assert rows_of(out)["a"][-3:] == ["20", "30", "30"]  # knee, stop, saved
    assert Path("all.pdf").read_bytes().startswith(b"%PDF")
    assert [file.name for file in Path("each").iterdir()] == ["0001_a.b.png"]


def test_curves_of_lightnings_logs(tmp_path, capsys):
    logger = CSVLogger(tmp_path, name="", version="")
    for epoch, value in enumerate(rise_and_fall(20, 60)):
        logger.log_metrics({"train_loss": 1.0, "epoch": epoch}, step=2 * epoch)
        logger.log_metrics({"val_acc": value, "val_loss": 1 - value, "epoch": epoch}, step=2 * epoch + 1)
    logger.save()
    curves = read_curves([str(tmp_path / "metrics.csv")])
    assert [(curve.name, curve.mode) for curve in curves] == [
        ("metrics: val_acc", "max"),
        ("metrics: val_loss", "min"),
    ]
    assert [curve.points[0][0] for curve in curves] == [1, 1]
    studies = [study_curve(curve, KneeRule()) for curve in curves]
    assert [(study.knee, study.stop) for study in studies] == [(20, 30), (20, 30)]
    assert "`metric` must be one of metrics.csv, got 'val'" in fails(
        capsys, "curves", "metrics.csv", "--metric", "val"
    )


def test_curves_of_a_journal(tmp_path):
    plan = {"type": "plan", "monitor": "val/acc", "mode": "min"}
    edge = {"type": "edge", "edge": ["start", "a"], "curve": [[0, 1.0], [1, None], [2, 0.5]]}
    (curve,) = read_curves([write_lines(tmp_path / "journal.jsonl", plan, edge)])
    assert curve == Curve(name="start → a", points=((0, 1.0), (1, None), (2, 0.5)), mode="min")


def test_wrong_files_get_a_sentence(tmp_path, capsys):
    assert "no such file" in fails(capsys, "curves", "nowhere.csv")
    Path("a.csv").write_text("epoch,val_acc\n0,0.5\n1,x\n")
    assert "a.csv, line 3: must hold numbers, got 'x'" in fails(capsys, "curves", "a.csv")
    Path("a.jsonl").write_text('{"values": [1, 2\n')
    assert "a.jsonl, line 1: is not JSON" in fails(capsys, "curves", "a.jsonl")


def test_families_are_compared_on_scaled_curves():
    values = [1000 * value for value in rise_and_fall(20, 60)]
    noise = np.random.default_rng(0).normal(0, 1, 60)
    curve = Curve(name="a", points=tuple(enumerate((values + noise).tolist(), start=1)), mode="max")
    study = study_curve(curve, KneeRule())
    assert all(0 < fit.rmse < 0.1 for fit in study.fits.values())
    assert study.fits["multi-exponential"].rmse <= study.fits["exponential"].rmse * 1.001


def test_shell_completes_commands_and_options(tmp_path, capsys):
    main(["completion", "bash"])
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    assert script.stat().st_size < 1_000_000

    def completed(*words):
        line = f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}"
        line += f"; _shtab_opplan opplan '{words[-1]}' '{words[-2]}'; echo ${{COMPREPLY[@]}}"
        return subprocess.run(
            ["bash", "--norc", "-c", line], capture_output=True, text=True, check=True
        ).stdout.split()

    assert completed("opplan", "pl") == ["plan"]
    assert completed("opplan", "plan", "--plan.dirp") == ["--plan.dirpath"]
    assert completed("opplan", "fit", "--trainer.max_ep") == ["--trainer.max_epochs"]
    assert completed("opplan", "export", "--f") == ["--format"]


def test_networks_that_refuse_the_clips_are_listed_all_the_same(capsys):
    main(["networks", "torchvision/vit_b_*", "--crop_size", "112", "--num_classes", "4"])
    out = capsys.readouterr().out
    assert "torchvision/vit_b_16" in out
    assert "–" in out
    main(["networks", "torchvision/regnet_y_400mf", "--num_classes", "4"])
    assert "3,904,908" in capsys.readouterr().out

"""KneeStopping in somebody else's LightningCLI, from YAML alone, in one process and in two."""

import json
import subprocess
import sys

import pytest
import yaml

from tests.helpers.scripted import PROJECT, rise_and_fall


@pytest.mark.parametrize(
    "devices", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.process)]
)
def test_callback_from_yaml_stops_all_processes_at_the_knee(tmp_path, devices):
    config = {
        "model": {"values": rise_and_fall(12), "metric": "val/acc"},
        "trainer": {
            "accelerator": "cpu",
            "devices": devices,
            "strategy": "ddp" if devices > 1 else "auto",
            "max_epochs": 60,
            "logger": False,
            "enable_progress_bar": False,
            "default_root_dir": str(tmp_path / "run"),
            "callbacks": [
                {
                    "class_path": "lightning_opplan.KneeStopping",
                    "init_args": {"monitor": "val/acc", "mode": "max", "patience": 3},
                }
            ],
        },
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.helpers.other_project",
        "--config",
        str(tmp_path / "config.yaml"),
    ]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr[-3000:]
    ranks = [json.loads((tmp_path / "run" / f"rank-{rank}.json").read_text()) for rank in range(devices)]
    assert all(rank == ranks[0] for rank in ranks)
    assert ranks[0][:2] == [15, 12]
    assert ranks[0][3] == "knee-epoch=12.ckpt"
    assert [file.name for file in (tmp_path / "run" / "checkpoints").iterdir()] == ["knee-epoch=12.ckpt"]


@pytest.mark.process
def test_differing_metrics_are_told_and_the_first_process_decides(tmp_path):
    script = tmp_path / "unsynced.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "import torch\n"
        "from lightning_opplan import KneeStopping\n"
        "from tests.helpers.scripted import Points, Scripted, quiet_trainer, rise_and_fall\n"
        "if __name__ == '__main__':\n"
        "    stopping = KneeStopping('val/acc', patience=3)\n"
        "    trainer = quiet_trainer(sys.argv[1], callbacks=[stopping], devices=2, strategy='ddp')\n"
        "    values = rise_and_fall(12) if trainer.global_rank == 0 else rise_and_fall(20)\n"
        "    trainer.fit(Scripted(values), Points())\n"
        "    found = f'{trainer.current_epoch} {stopping.knee_epoch}'\n"  # two processes' lines may run into one
        "    Path(sys.argv[1], f'rank-{trainer.global_rank}').write_text(found)\n"
        "    torch.distributed.barrier()\n"  # or gloo aborts at times
        "    torch.distributed.destroy_process_group()\n"
    )
    result = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], cwd=PROJECT, capture_output=True, text=True, timeout=200,
        env={**__import__("os").environ, "PYTHONPATH": str(PROJECT)},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert [(tmp_path / f"rank-{rank}").read_text() for rank in range(2)] == ["15 12", "15 12"]
    assert "differs between processes; the first one's value decides" in result.stderr

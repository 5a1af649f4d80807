"""Networks of other libraries are planned, killed, resumed, followed and tested, averaged weights and all."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from lightning_opplan.tuner.edges.checkpoints import load_weights
from tests.helpers import finetuned
from tests.helpers.driver import edges_of
from tests.helpers.scripted import PROJECT, quiet_trainer

SOURCES = ["torchvision", "timm", pytest.param("transformers", marks=pytest.mark.transformers)]


def values_of_files(tuner, folder):
    """By edge whose weights are kept: what the journal says, and what a new Trainer measures of the file."""
    found = {}
    for edge, outcome in tuner.search().outcomes.items():
        for weights in folder.glob(f"edges/*_{edge.parent}--{edge.child}/weights.ckpt"):
            model = tuner.spec.recipe.build_model(tuner.spec.graph.settings[edge.child])
            load_weights(model, str(weights))
            trainer = quiet_trainer(folder, limit_val_batches=2)
            (logged,) = trainer.validate(model, tuner.spec.recipe.build_data({}), verbose=False)
            found[edge] = outcome.value, logged["val/loss"]
    return found


def killed_once(folder, source):
    """Kill a search within an edge that has a parent, after its first epoch, and run it again to its end."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.helpers.finetuned", str(folder), source]
    paths = os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])
    options = {"cwd": PROJECT, "start_new_session": True, "env": {**os.environ, "PYTHONPATH": paths}}
    process = subprocess.Popen(command, **options, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (edges_of(folder) and list(folder.glob("edges/*/resume/*.ckpt"))):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(edges_of(folder)) < 3
    subprocess.run(command, **options, check=True, stdout=subprocess.DEVNULL, timeout=600)
    return json.loads((folder / "result.json").read_text())


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.timeout(900)
@pytest.mark.parametrize("source", SOURCES)
def test_killed_search_ends_as_the_undisturbed_one_and_its_values_are_those_of_its_files(tmp_path, source):
    torch.set_num_threads(1)
    tuner = finetuned.tuner(tmp_path / "whole", source)
    expected = json.loads(json.dumps(finetuned.fingerprint(tuner.search())))
    assert killed_once(tmp_path / "killed", source) == expected

    for name in ("whole", "killed"):
        values = values_of_files(finetuned.tuner(tmp_path / name, source), tmp_path / name)
        assert any(edge.parent != "start" for edge in values) or len(values) == 2
        for said, measured in values.values():
            assert measured == pytest.approx(said, rel=1e-5)

    model, data = tuner.spec.recipe.build_model({}), tuner.spec.recipe.build_data({})
    trainer = quiet_trainer(tmp_path, limit_test_batches=2)
    (logged,) = trainer.test(model, data, ckpt_path=str(tuner.follow()), verbose=False)
    assert {"test/loss", "test/accuracy"} <= set(logged)

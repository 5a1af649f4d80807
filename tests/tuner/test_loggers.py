"""How searches show in dashboards: a run for each edge and one for the search, read from what loggers have kept."""

import csv
from functools import partial

import pytest
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

from tests.helpers import toy

EDGES = ["start → 1-1", "1-1 → 2-1"]


class Ends(Callback):
    """A failure in the second edge, once."""

    left = 1

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 2 and "1-1--2-1" in str(trainer.default_root_dir) and Ends.left:
            Ends.left -= 1
            raise RuntimeError("the power went")


@pytest.fixture
def search(tmp_path):
    """Search a chain of two edges with a logger; returns the tuner."""

    def run(logger, *, callback=None):
        def trainer(callbacks, **options):
            more = [] if callback is None else [callback()]
            return Trainer(
                accelerator="cpu", max_epochs=4, logger=logger(), callbacks=[*callbacks, *more],
                enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=5, **options,
            )  # fmt: skip

        graph = toy.TransitionGraph(
            {"1-1": {"data.batch_size": 16}, "2-1": {"data.batch_size": 32, "model.lr": 0.05}},
            [("start", "1-1"), ("1-1", "2-1")],
        )
        tuner = toy.tuner(tmp_path / "mine", graph=graph, trainer=trainer)
        tuner.search()
        return tuner

    return run


@pytest.mark.parametrize("kind", [TensorBoardLogger, CSVLogger])
def test_loggers_of_files_name_their_folders(search, tmp_path, kind):
    search(partial(kind, tmp_path / "logs"))
    found = {str(file.parent.relative_to(tmp_path / "logs")) for file in (tmp_path / "logs").rglob("hparams.yaml")}
    assert found == {f"mine/{name}" for name in ("mine", "start.1-1", "1-1.2-1")}
    text = (tmp_path / "logs/mine/1-1.2-1/hparams.yaml").read_text()
    assert "data.batch_size: 32" in text
    assert "parent: 1-1" in text


def test_a_search_logs_what_it_knows_so_far(search, tmp_path):
    tuner = search(partial(CSVLogger, tmp_path / "logs"))
    with open(tmp_path / "logs/mine/mine/metrics.csv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["search/edges"], row["search/epochs"]) for row in rows] == [("1.0", "4.0"), ("2.0", "8.0")]
    best = max(outcome.value for outcome in tuner.search().outcomes.values())
    assert float(rows[-1]["search/best"]) == pytest.approx(best)
    assert len(list((tmp_path / "logs/mine").iterdir())) == 3, "a finished search logs nothing"


def test_names_that_were_given_stay(search, tmp_path):
    search(lambda: TensorBoardLogger(tmp_path / "logs", name="mine", version="own"))
    assert [folder.name for folder in (tmp_path / "logs/mine").iterdir()] == ["own"]


def test_a_failing_logger_of_the_search_is_said(search, tmp_path, monkeypatch):
    class Fails(CSVLogger):
        def log_metrics(self, metrics, step=None):
            if "search/edges" in metrics:
                raise OSError("no way there")
            super().log_metrics(metrics, step)

    with pytest.warns(UserWarning, match="The search as a whole is no longer logged: no way there"):
        assert search(partial(Fails, tmp_path / "logs")).search().path.steps


def test_states_of_a_path_are_of_its_family(search, tmp_path):
    tuner = search(partial(CSVLogger, tmp_path / "logs"))
    tuner.follow()
    assert {"follow.1-1", "follow.2-1"} & {folder.name for folder in (tmp_path / "logs/mine").iterdir()}


@pytest.mark.slow
def test_mlflow_nests_the_edges_below_the_search(search, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    place = f"file:{tmp_path}/mlruns"
    logger = partial(MLFlowLogger, experiment_name="trial", tracking_uri=place)
    Ends.left = 1
    with pytest.raises(RuntimeError, match="the power went"):
        search(logger, callback=Ends)
    search(logger, callback=Ends)
    client = MlflowClient(place)
    runs = client.search_runs([client.get_experiment_by_name("trial").experiment_id])
    by_name = {run.info.run_name: run for run in runs}
    assert len(runs) == 3, "an interrupted run goes on"
    assert set(by_name) == {"mine", *EDGES}
    for edge in EDGES:
        tags = by_name[edge].data.tags
        assert tags["mlflow.parentRunId"] == by_name["mine"].info.run_id
        assert tags["group"] == "mine"
    assert by_name[EDGES[1]].data.params["data.batch_size"] == "32"
    epochs = [metric.step for metric in client.get_metric_history(by_name["mine"].info.run_id, "search/edges")]
    assert epochs == [4, 8]


@pytest.mark.slow
def test_wandb_groups_the_runs_of_a_search(search, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    runs, found, log = {}, {}, wandb.Run.log

    def recorded(run, data, *arguments, **options):
        runs[run.id] = dict(run.config)
        found.setdefault((run.group, run.name), set()).update(data)
        log(run, data, *arguments, **options)

    monkeypatch.setattr(wandb.Run, "log", recorded)
    monkeypatch.setenv("WANDB_SILENT", "true")
    search(partial(WandbLogger, save_dir=tmp_path / "wb", offline=True, project="trial"))
    assert set(found) == {("mine", "mine"), *(("mine", edge) for edge in EDGES)}
    assert len(runs) == 3, "that of the search is gone on with"
    assert [config["data.batch_size"] for config in runs.values() if "state" in config] == [16, 32]
    assert "search/best" in found["mine", "mine"]
    for edge in EDGES:
        assert "val/score" in found["mine", edge]
        assert "search/best" not in found["mine", edge]

"""Searches with code that other people have written."""

import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch.utils.data import DataLoader, IterableDataset

from lightning_opplan import (
    KneeStopping,
    OpplanError,
    OptimizationPath,
    PathSearchTuner,
    SearchResult,
    SearchSpace,
    TransitionGraph,
)
from lightning_opplan.planning.journal import JournalError
from lightning_opplan.planning.path import PathStep
from lightning_opplan.tuner.edges.checkpoints import extras_of
from lightning_opplan.tuner.executors.lock import FileLock, LockedError
from tests.helpers import toy
from tests.helpers.scripted import PROJECT, Points, Scripted, quiet_trainer, rise_and_fall

TWO = TransitionGraph({"a": {"model.lr": 0.1}, "b": {"model.lr": 0.01}}, [("start", "a"), ("a", "b")])


def tuner(folder, **options):
    return toy.tuner(folder, **{"graph": TWO, "max_epochs": 4, **options})


def epochs_of(result):
    return [outcome.epochs_run for outcome in result.outcomes.values()]


# Weights and checkpoints


class Thing:
    """An object that is not loaded for safety."""


class Keeping(toy.Classifier):
    """Keeps objects of its own, among its hyper-parameters and beside them."""

    def __init__(self, lr=0.1, folder=Path("data"), thing=None):
        super().__init__(lr=lr)
        self.save_hyperparameters()
        self.seen = []

    def on_save_checkpoint(self, checkpoint):
        checkpoint["thing"], checkpoint["number"] = Thing(), 7

    def on_load_checkpoint(self, checkpoint):
        Keeping.last = checkpoint, self.trainer


def test_any_hyper_parameter_may_be_saved_and_is_not_in_the_way_of_weights(tmp_path):
    result = tuner(tmp_path, model=partial(Keeping, thing=Thing())).search()
    content = torch.load(result.weights, weights_only=True)  # loads from anywhere
    assert content["hyper_parameters"] == {"lr": 0.01, "width": 8}
    assert content["number"] == 7
    assert "thing" not in content


def test_hooks_of_the_module_are_called_between_states(tmp_path):
    tuner(tmp_path, model=Keeping).search()
    checkpoint, trainer = Keeping.last
    assert checkpoint["number"] == 7
    assert isinstance(checkpoint["thing"], Thing)
    assert isinstance(trainer, Trainer)


def test_what_is_not_safe_goes_with_the_weights(tmp_path):
    result = tuner(tmp_path, model=Keeping).search()
    assert extras_of(result.weights).is_file()
    for file in tmp_path.glob("edges/*/weights.*"):
        assert file.with_suffix(".ckpt").is_file()


def test_interrupted_search_goes_on_with_any_object_in_its_checkpoints(tmp_path):
    class Failing(Keeping):
        epochs = None

        def on_train_epoch_start(self):
            self.epochs.append(self.trainer.current_epoch)
            if len(self.epochs) == 3:
                raise ConnectionError("broken")

    Failing.epochs = []
    with pytest.raises(ConnectionError):
        tuner(tmp_path, model=Failing).search()
    tuner(tmp_path, model=Failing).search()
    assert Failing.epochs[:4] == [0, 1, 2, 2]


def test_lenient_loading_is_honoured(tmp_path):
    class Lenient(toy.Classifier):
        strict_loading = False

        def __init__(self, lr=0.1):
            super().__init__(lr=lr)
            self.strict_loading = False

        def state_dict(self, *arguments, **named):
            state = super().state_dict(*arguments, **named)
            return {name: tensor for name, tensor in state.items() if "bias" not in name}

    assert len(tuner(tmp_path, model=Lenient).search().outcomes) == 2


# Trainers and their callbacks


def shared(*callbacks):
    def trainer(callbacks=(), given=callbacks, **options):
        return Trainer(
            accelerator="cpu", max_epochs=6, logger=False, callbacks=[*given, *callbacks],
            enable_progress_bar=False, **options,
        )  # fmt: skip

    return trainer


class StopsAtThree(Callback):
    """Counts all epochs that it ever sees."""

    def __init__(self):
        self.count = 0

    def on_train_epoch_start(self, trainer, pl_module):
        self.count += 1
        trainer.should_stop = self.count > 2


def test_callbacks_that_edges_would_share_are_as_new_for_each(tmp_path):
    with pytest.warns(UserWarning, match="Every edge gets the same StopsAtThree: each trains with a copy of it"):
        result = tuner(tmp_path, trainer=shared(StopsAtThree())).search()
    assert epochs_of(result) == [2, 2]


@pytest.mark.filterwarnings("ignore:Every edge gets the same Counting")
def test_callbacks_that_compare_and_have_no_hash_are_told_apart(tmp_path):
    @dataclass
    class Counting(Callback):
        count: int = 0

        def on_train_epoch_start(self, trainer, pl_module):
            self.count += 1
            trainer.should_stop = self.count > 2

    search = tuner(tmp_path, trainer=shared(Counting(), Counting()))
    search.estimate()  # its training is not one that they remember
    assert epochs_of(search.search()) == [2, 2]


def test_callback_that_cannot_be_copied_is_refused(tmp_path):
    class Held(Callback):
        def __deepcopy__(self, memo):
            raise TypeError("no copies")

    with pytest.raises(ValueError, match="Callbacks must be made anew for every edge, got the same Held again"):
        tuner(tmp_path, trainer=shared(Held())).search()


def test_module_that_edges_would_share_is_refused(tmp_path):
    model = toy.Classifier()
    with pytest.raises(ValueError, match="`model` must return a new Classifier for every edge, got the same object"):
        tuner(tmp_path, model=lambda lr: model).search()


def test_callbacks_that_end_trainings_are_told(tmp_path):
    early = EarlyStopping("val/score", patience=90, mode="max")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        tuner(tmp_path, trainer=shared(KneeStopping("val/score"), early)).search()
    told = [str(warning.message) for warning in said]
    assert [sentence for sentence in told if "KneeStopping" in sentence] == [
        "The Trainer's own `KneeStopping` is left out: a search stops its edges itself."
    ]
    assert len([sentence for sentence in told if "own `EarlyStopping` may end edges" in sentence]) == 1


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        (lambda: Trainer(), "`trainer` must take `callbacks` and `default_root_dir`"),
        (lambda **kw: Trainer(callbacks=[], **kw), "`trainer` must pass on what it is given, once"),
    ],
    ids=["nothing taken", "callbacks twice"],
)
def test_wrong_form_of_a_trainer_is_said_with_the_right_one(tmp_path, factory, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        tuner(tmp_path, trainer=factory).search()
    assert "lambda callbacks, **kw: Trainer(callbacks=[*callbacks, …], **kw)" in str(caught.value)
    assert not list(tmp_path.glob("edges/*"))


# Data


class ForFitAlone(toy.Quadrants):
    def setup(self, stage):
        assert stage == "fit"
        super().setup(stage)


def test_data_meets_no_other_stage_than_fit(tmp_path):
    result = tuner(tmp_path, data=ForFitAlone, start_value=None).search()
    assert all(outcome.curve[0][0] == 0 for outcome in result.outcomes.values())


def test_module_with_loaders_of_its_own(tmp_path):
    class Own(toy.Classifier):
        def train_dataloader(self):
            self.data = toy.Quadrants()
            self.data.setup("fit")
            return self.data.train_dataloader()

        def val_dataloader(self):
            return toy.Quadrants.val_dataloader(self.trainer.lightning_module.data)

    # Lightning asks for validation data after training data in a fit, and y₀ after both.
    assert len(tuner(tmp_path, model=Own, data=None).search().outcomes) == 2


def test_no_validation_is_an_error_and_no_weights(tmp_path):
    trainer = partial(Trainer, accelerator="cpu", max_epochs=3, check_val_every_n_epoch=5, logger=False)
    with pytest.raises(RuntimeError, match="ended without a validation: .*`check_val_every_n_epoch`"):
        tuner(tmp_path, trainer=trainer).search()
    assert not (tmp_path / "path.yaml").exists()


class Numbers(IterableDataset):
    """A stream without an end."""

    def __iter__(self):
        while True:
            yield torch.zeros(1)


def test_epochs_of_a_stream_are_validations_in_search_and_follow(tmp_path):
    steps = []

    class Counting(Scripted):
        def training_step(self, batch, batch_idx):
            steps.append(batch_idx)
            return self.layer(batch).pow(2).mean()

    def trainer(callbacks=(), **options):
        return quiet_trainer(tmp_path, callbacks=list(callbacks), val_check_interval=3, **{**options, "max_epochs": 1})

    search = PathSearchTuner(
        TransitionGraph({"a": {"model.lr": 0.1}}, [("start", "a")]), monitor="val/acc", mode="max", progress=False,
        model=lambda lr: Counting(rise_and_fall(8), lr=lr),
        data=lambda: (DataLoader(Numbers()), Points().val_dataloader()),
        trainer=trainer, dirpath=tmp_path / "run", knee={"patience": 3},
    )  # fmt: skip
    result = search.search()
    assert result.path.steps[0].epochs == 8
    assert len(steps) == (8 + 3) * 3
    assert "`val_check_interval` batches" in (tmp_path / "run" / "path.yaml").read_text()
    steps.clear()
    search.follow()
    assert len(steps) == 8 * 3


def test_search_that_pauses_needs_epochs_of_a_stream(tmp_path):
    search = PathSearchTuner(
        SearchSpace(choices={"model.lr": [0.1, 0.01]}), monitor="val/acc", mode="max", progress=False,
        model=lambda lr=0.1: Scripted(rise_and_fall(8), lr=lr), budget={"epochs": 40}, dirpath=tmp_path / "run",
        data=lambda: (DataLoader(Numbers()), Points().val_dataloader()),
        trainer=lambda callbacks=(), **kw: quiet_trainer(tmp_path, callbacks=callbacks, val_check_interval=3, **kw),
    )  # fmt: skip
    with pytest.raises(ValueError, match="must know where epochs end, got a stream without a length"):
        search.search()


# Paths


def test_follow_that_does_not_come_to_its_end_publishes_nothing(tmp_path):
    trainer = partial(Trainer, accelerator="cpu", max_steps=15, logger=False, enable_progress_bar=False)
    path = OptimizationPath(steps=(PathStep(state="a", epochs=3, setting={"model.lr": 0.1}),))
    with pytest.raises(RuntimeError, match="ended after 1.5 of 3 epochs: `max_steps`"):
        tuner(tmp_path, trainer=trainer).follow(path)
    assert not (tmp_path / "follow" / "weights.ckpt").exists()


BARE = "steps: [{state: a, epochs: 2}, {state: b, epochs: 1e-0}]"


def test_path_without_settings_has_those_of_the_graph(tmp_path):
    file = tmp_path / "path.yaml"
    file.write_text(BARE)
    path = OptimizationPath.load(file, graph=TWO)
    assert [step.setting for step in path.steps] == [{"model.lr": 0.1}, {"model.lr": 0.01}]
    assert path.steps[1].epochs == 1.0
    with pytest.raises(ValueError, match="must say what is `set` in it, or be a state of a graph"):
        OptimizationPath.load(file)


def test_numbers_of_a_path_edited_by_hand(tmp_path):
    file = tmp_path / "path.yaml"
    file.write_text("steps: [{state: a, epochs: 2, set: {model.lr: 1e-1, model.name: '1e-1'}}]")
    path = OptimizationPath.load(file)
    assert path.steps[0].setting == {"model.lr": 0.1, "model.name": "1e-1"}
    assert OptimizationPath.load(path.save(tmp_path / "again.yaml")) == path


# Before the first epoch


def test_states_whose_weights_do_not_fit_are_found_before_anything_is_trained(tmp_path):
    graph = TransitionGraph({"a": {"model.width": 4}, "b": {"model.width": 6}}, [("start", "a"), ("a", "b")])
    with pytest.raises(
        ValueError, match=r"'network.0.weight' is of shape \(4, 2\) in 'a' and of shape \(6, 2\) in 'b'"
    ):
        tuner(tmp_path, graph=graph).search()
    assert not (tmp_path / "journal.jsonl").exists()


def test_states_that_never_hand_over_may_differ(tmp_path):
    graph = TransitionGraph({"a": {"model.width": 4}, "b": {"model.width": 6}}, [("start", "a"), ("start", "b")])
    assert len(tuner(tmp_path, graph=graph).search().outcomes) == 2


def test_argument_that_no_setting_gives_is_found_before_anything_is_trained(tmp_path):
    with pytest.raises(ValueError, match="`model` must have a default for `width`, or every setting a value, got"):
        tuner(tmp_path, model=lambda lr, width: toy.Classifier(lr, width)).search()


@pytest.mark.parametrize("value", [float("inf"), float("nan"), Thing()], ids=["inf", "nan", "object"])
def test_values_that_no_journal_holds_are_refused(value):
    with pytest.raises(ValueError, match="`model.lr` of state 'a' must be a plain value"):
        TransitionGraph({"a": {"model.lr": value}}, [("start", "a")])


def test_names_of_any_length_and_letters(tmp_path):
    name = "$\\alpha$ ☃" + "ж" * 130
    graph = TransitionGraph({name: {"model.lr": 0.1}}, [("start", name)])
    result = tuner(tmp_path, graph=graph, max_epochs=8).search()
    assert result.path.steps[0].state == name
    assert (tmp_path / "report.html").is_file()
    tuner(tmp_path, graph=graph, max_epochs=8).follow()


# Code


def written(folder, body, name):
    file = folder / f"{name}.py"
    file.write_text(
        "from tests.helpers import toy\n\n\ndef factor():\n    " + body + "\n\n\n"
        "class Net(toy.Classifier):\n    def training_step(self, batch, batch_idx):\n"
        "        return factor() * super().training_step(batch, batch_idx)\n\n\n"
        "def make(lr):\n    return Net(lr=lr)\n"
    )
    return file


def test_changed_code_is_noticed_and_comments_are_not(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(body):
        written(tmp_path, body, "of_a_user")
        sys.modules.pop("of_a_user", None)
        __import__("linecache").clearcache()
        __import__("importlib").invalidate_caches()
        spec = __import__("importlib.util").util.spec_from_file_location("of_a_user", tmp_path / "of_a_user.py")
        module = __import__("importlib.util").util.module_from_spec(spec)
        exec(compile((tmp_path / "of_a_user.py").read_text(), str(tmp_path / "of_a_user.py"), "exec"), vars(module))
        sys.modules["of_a_user"] = module
        return module.make

    run = tmp_path / "run"
    first = tuner(run, model=make("return 1.0")).search()
    assert tuner(run, model=make('"""As it was."""\n    return 1.0  # said')).search().path == first.path
    changed = make("return 2.0")
    with pytest.raises(JournalError, match="The code of 'of_a_user.factor' has changed since. Delete .*run"):
        tuner(run, model=changed).search()
    assert tuner(run, model=changed, allow_changed_code=True).search().path == first.path
    assert tuner(run, model=changed).search().path == first.path  # it has been said


# Places


def test_user_code_may_change_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Moving(toy.Classifier):
        def on_fit_start(self):
            (tmp_path / "elsewhere").mkdir(exist_ok=True)
            os.chdir(tmp_path / "elsewhere")

    result = tuner("run", model=Moving).search()
    assert result.weights.is_file()
    assert {each.name for each in tmp_path.iterdir()} == {"run", "elsewhere"}


def test_folders_of_edges_may_be_symbolic_links(tmp_path):
    tuner(tmp_path / "run", seed=1).search()
    for folder in (tmp_path / "run" / "edges").iterdir():
        target = folder.rename(tmp_path / folder.name)
        folder.symlink_to(target)
    (tmp_path / "run" / "journal.jsonl").unlink()
    result = tuner(tmp_path / "run", seed=2).search()
    assert result.weights.is_file()
    assert all(folder.is_symlink() for folder in (tmp_path / "run" / "edges").iterdir())


def test_url_is_refused():
    with pytest.raises(ValueError, match="`dirpath` must be a folder, got the URL 's3://bucket/run'"):
        tuner("s3://bucket/run")


@pytest.mark.parametrize(
    ("old", "new"),
    [('"value": -', '"value": "x", "was": -'), ('"epochs_run": ', '"epochs_run": -')],
    ids=["text", "-"],
)
def test_journal_edited_by_hand_is_refused_with_the_line(tmp_path, old, new):
    tuner(tmp_path).search()
    file = tmp_path / "journal.jsonl"
    first, second, third = file.read_text().splitlines()
    assert old in second
    file.write_text("\n".join([first, "", second.replace(old, new), third]) + "\n")
    with pytest.raises(OpplanError, match="journal.jsonl, line 3: does not describe an edge"):
        tuner(tmp_path).search()


def test_blank_lines_in_a_journal_do_no_harm(tmp_path):
    result = tuner(tmp_path).search()
    file = tmp_path / "journal.jsonl"
    file.write_text(file.read_text().replace("\n", "\n\n"))
    assert tuner(tmp_path).search().path == result.path


# Locks


def test_lock_holds_whatever_else_reads_it_in_the_process(tmp_path):
    with FileLock(tmp_path / "lock"):
        (tmp_path / "lock").read_bytes()
        with pytest.raises(LockedError, match=f"is in use by process {os.getpid()} on "):
            FileLock(tmp_path / "lock").__enter__()
        with pytest.raises(LockedError):
            FileLock(tmp_path / "lock").__enter__()


def test_file_system_without_locks_gets_a_sentence(tmp_path, monkeypatch):
    lock = FileLock(tmp_path / "lock")
    monkeypatch.setattr(lock._lock, "acquire", lambda **_: (_ for _ in ()).throw(OSError(37, "No locks available")))
    with pytest.raises(
        LockedError, match="cannot be locked .*No locks available.*Choose a folder on a file system with"
    ):
        lock.__enter__()


# The public face


@pytest.mark.slow
def test_everything_is_a_method_and_a_result_can_be_loaded(tmp_path):
    search = toy.tuner(tmp_path, max_epochs=3)
    with pytest.raises(FileNotFoundError):
        SearchResult.load(tmp_path)
    found = search.search()
    loaded = SearchResult.load(tmp_path)
    assert (loaded.path, loaded.outcomes, loaded.is_complete) == (found.path, dict(found.outcomes), True)
    assert loaded.weights == found.weights
    assert search.follow() == tmp_path / "follow" / "weights.ckpt"
    assert search.report() == tmp_path / "report.html"
    assert len(search.study().outcomes) > 0
    assert search.estimate().num_edges == 7


def test_mode_that_was_not_given_is_doubted(tmp_path):
    with pytest.warns(UserWarning, match="'val/loss' sounds as if lower were better"):
        tuner(tmp_path, monitor="val/loss")

    def model(lr):
        return Scripted([1 - epoch / 30 for epoch in range(30)], lr=lr)

    trainer = partial(quiet_trainer, tmp_path, max_epochs=6)

    def made(callbacks=(), **options):
        return trainer(callbacks=list(callbacks), **{**options, "max_epochs": 6})

    search = tuner(tmp_path / "run", model=model, data=Points, monitor="val/acc", trainer=made)
    with pytest.warns(UserWarning, match="'val/acc' was best at the first validation of start → a"):
        search.search()


# Whole processes

SCRIPT = """
import sys
from tests.helpers import toy
from tests.tuner.test_at_home import TWO
print("started", flush=True)
{guard}toy.tuner(sys.argv[1], graph=TWO, executor={executor!r}, max_epochs={epochs}, progress=True).search()
"""


def started(tmp_path, *, executor="in_process", guard="if __name__ == '__main__': ", epochs=4, **options):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(guard=guard, executor=executor, epochs=epochs))
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), **options.pop("env", {})}
    command = [sys.executable, "-W", "ignore", str(script), str(tmp_path / "run")]
    return subprocess.Popen(
        command, cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


@pytest.mark.process
def test_missing_guard_is_said_at_once(tmp_path):
    process = started(tmp_path, executor="processes", guard="")
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "WorkerDiedError: A script must start its search below `if __name__ == '__main__':`" in errors
    assert not list((tmp_path / "run").glob("edges/*"))


@pytest.mark.process
def test_terminal_of_ascii_and_a_closed_pipe_do_not_end_a_search(tmp_path):
    process = started(tmp_path, env={"PYTHONIOENCODING": "ascii"})
    assert process.stdout.readline() == "started\n"
    process.stdout.close()
    assert process.wait(120) == 0, process.stderr.read()
    process.stderr.close()
    assert (tmp_path / "run" / "path.yaml").is_file()


@pytest.mark.process
def test_status_of_a_script_that_is_asked_to_end_is_not_0(tmp_path):
    process = started(tmp_path, epochs=100000)
    while not list((tmp_path / "run").glob("edges/*/resume/*.ckpt")):
        assert process.poll() is None, process.stderr.read()
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors


@pytest.mark.process
def test_package_is_imported_without_what_windows_has_not(tmp_path):
    code = (
        "import sys\nfor name in ('fcntl', 'pwd', 'grp', 'termios', 'resource'):\n    sys.modules[name] = None\n"
        "import lightning_opplan, lightning_opplan.cli, lightning_opplan.tuner\nprint('imported')"
    )
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=100
    )
    assert result.stdout == "imported\n", result.stderr

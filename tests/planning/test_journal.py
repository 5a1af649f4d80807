import json
import resource
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_opplan.planning.graph import Edge
from lightning_opplan.planning.journal import Journal, JournalError, PlanRecord
from lightning_opplan.planning.knee import KneeRule
from lightning_opplan.planning.options import SearchOptions
from lightning_opplan.planning.outcome import EdgeOutcome
from tests.helpers import forked
from tests.helpers.searches import lattice


def plan(**changes):
    fields = {"monitor": "val/acc", "mode": "max", "seed": 1, "experiment": {"lr": 0.1}}
    return PlanRecord(graph=lattice(lengths=2, rates=1), **{**fields, **changes})


def outcome(child, value=0.5):
    return EdgeOutcome(
        edge=Edge("start", child),
        value=value,
        knee_epoch=3,
        epochs_run=13,
        curve=((0, 0.0), (1, 0.4), (2, None), (3, 0.5)),
        seconds=1.5,
        weights="w.ckpt",
        stopping_reason="peaked …",
        devices=2,
        num_samples=80,
        sha256="a",
    )


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "search" / "journal.jsonl")
    assert not journal.open(plan()).outcomes
    return journal


def test_outcomes_come_back_as_they_were(journal):
    written = [outcome("cs/1-1"), outcome("us/1-1", None)]
    for each in written:
        journal.append(each)
    assert list(journal.open(plan()).outcomes.values()) == written


def test_paused_edge_comes_back_until_it_has_finished(journal):
    for value in (0.2, 0.3):
        journal.append(replace(outcome("cs/1-1", value), is_paused=True))
    search = journal.open(plan())
    assert list(search.paused.values()) == [replace(outcome("cs/1-1", 0.3), is_paused=True)]
    assert not search.outcomes
    lines = [json.loads(line) for line in journal.file.read_text().splitlines()[1:]]
    assert [(line["type"], line["epochs_run"], line["curve"][-1]) for line in lines] == [("pause", 13, [3, 0.5])] * 2
    journal.append(outcome("cs/1-1"))
    assert not journal.open(plan()).paused
    assert list(journal.open(plan()).outcomes.values()) == [outcome("cs/1-1")]


def test_journal_with_a_paused_edge_does_not_make_way(journal):
    journal.append(replace(outcome("cs/1-1"), is_paused=True))
    with pytest.raises(JournalError, match="`seed` was 1 and is now 2"):
        journal.open(plan(seed=2))


def test_edge_of_another_graph_is_named(journal):
    journal.append(outcome("cs/9-9"))
    with pytest.raises(JournalError, match="has an edge that its graph has not: .*got 'start → cs/9-9'"):
        journal.read()


def test_graph_is_rebuilt_from_the_first_line(journal):
    read, _ = journal.read()
    graph = lattice(lengths=2, rates=1)
    assert (read.graph.states, read.graph.edges) == (graph.states, graph.edges)
    assert dict(read.graph.settings) == dict(graph.settings)
    assert dict(read.graph.finals) == dict(graph.finals)


def test_every_line_is_json_of_its_own(journal):
    journal.append(outcome("cs/1-1"))
    types = [json.loads(line)["type"] for line in journal.file.read_text().splitlines()]
    assert types == ["plan", "edge"]


@pytest.mark.parametrize("cut", [1, 7, 60])
def test_torn_last_line_is_left_out_and_cut_off(journal, cut):
    journal.append(outcome("cs/1-1"))
    journal.append(outcome("us/1-1"))
    whole = journal.file.read_bytes()
    journal.file.write_bytes(whole[:-cut])
    assert list(journal.open(plan()).outcomes) == [Edge("start", "cs/1-1")]
    journal.append(outcome("us/1-1"))
    assert journal.file.read_bytes() == whole


def test_torn_first_line_is_a_new_journal(journal):
    journal.file.write_bytes(journal.file.read_bytes()[:20])
    assert not journal.open(plan()).outcomes
    assert journal.read()[0].seed == 1


def test_an_edge_counts_once(journal):
    journal.append(outcome("cs/1-1", 0.5))
    journal.append(outcome("cs/1-1", 0.9))
    assert journal.open(plan()).outcomes[Edge("start", "cs/1-1")].value == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 2}, "`seed` was 1 and is now 2"),
        ({"monitor": "val/loss"}, "`monitor` was 'val/acc' and is now 'val/loss'"),
        ({"experiment": {"lr": 0.2}}, "`experiment.lr` was 0.1 and is now 0.2"),
        ({"experiment": {}}, "`experiment.lr` was 0.1 and is gone"),
        ({"experiment": {"lr": 0.1, "batch": 2}}, r"`experiment.batch` is new \(2\)"),
        ({"options": SearchOptions(knee=KneeRule(confirm=2))}, "`knee.confirm` was 1 and is now 2"),
        ({"options": SearchOptions(beam=2)}, "`search.beam` was 1 and is now 2"),
        ({"options": SearchOptions(preset="fast")}, "`knee.max_risk` was 0.0 and is now 0.3"),
        ({"kind": "grid"}, "`kind` was 'plan' and is now 'grid'"),
    ],
    ids=["seed", "monitor", "changed", "gone", "new", "knee", "beam", "preset", "kind"],
)
def test_journal_of_another_plan_is_refused(journal, changes, message):
    journal.append(outcome("cs/1-1"))
    before = journal.file.read_bytes()
    with pytest.raises(JournalError, match=message):
        journal.open(plan(**changes))
    assert journal.file.read_bytes() == before


def test_journal_without_a_finished_edge_makes_way(journal):
    assert not journal.open(plan(seed=2)).outcomes
    assert journal.read()[0].seed == 2


def test_equal_plans_have_equal_fingerprints():
    assert plan().fingerprint == plan().fingerprint != plan(seed=2).fingerprint


def test_corrupted_line_is_named(journal):
    journal.append(outcome("cs/1-1"))
    journal.append(outcome("us/1-1"))
    lines = journal.file.read_bytes().splitlines(keepends=True)
    journal.file.write_bytes(lines[0] + b'{"type": "edge"}\n' + lines[2])
    with pytest.raises(JournalError, match="line 2: does not describe an edge"):
        journal.read()
    journal.file.write_bytes(lines[0] + b"oops\n" + lines[2])
    with pytest.raises(JournalError, match="line 2: is not JSON"):
        journal.read()


def test_other_schema_is_refused_with_advice(journal):
    journal.file.write_text(journal.file.read_text().replace('"schema": 3', '"schema": 99'))
    with pytest.raises(JournalError, match="has schema 99, this version reads 1 to 3. Go on with the version"):
        journal.open(plan())


def test_missing_journal_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no journal of a search here"):
        Journal(tmp_path / "journal.jsonl").read()


def test_full_disk_leaves_the_journal_as_it_was(journal):
    """A limit on the size of files stands for the full disk: the write fails in the middle of a line."""
    journal.append(outcome("cs/1-1"))
    before = journal.file.read_bytes()

    def append():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 40, len(before) + 40))
        with pytest.raises(OSError, match="The journal could not be written"):
            journal.append(outcome("us/1-1"))

    assert forked.run(append) == 0
    assert journal.file.read_bytes() == before
    assert list(journal.open(plan()).outcomes) == [Edge("start", "cs/1-1")]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


ASSETS = {schema: Path(__file__).parent / "assets" / f"journal-schema-{schema}.jsonl" for schema in (1, 2)}


@pytest.mark.parametrize(("schema", "edges", "preset", "max_risk"), [(1, 7, "paper", 0.0), (2, 3, "fast", 0.3)])
def test_journals_of_older_schemas_are_read(schema, edges, preset, max_risk):
    plan, search = Journal(ASSETS[schema]).read()
    assert search.is_complete
    assert len(search.outcomes) == len(plan.graph.edges) == edges
    assert (plan.kind, plan.options.preset, plan.options.start_value, plan.options.beam) == ("plan", preset, -1.0, 1)
    assert (plan.options.rule.patience, plan.options.rule.max_risk) == (3, max_risk)
    assert plan.experiment["model"] == "tests.tuner.toy.Classifier()"
    first = search.outcomes[Edge("start", "1-1")]
    assert first.stopping_reason.startswith("val/score peaked at epoch 3")
    if schema == 1:
        assert (first.standard_error, first.sha256, first.devices) == (None, None, 1)
    else:
        assert first.standard_error == pytest.approx(0.1526, abs=1e-4)
        assert (first.num_samples, first.sha256[:8]) == (800, "2baa8c05")


@pytest.mark.parametrize(
    ("row", "kind"),
    [({"branch": "", "decay": "step"}, "grid"), ({"kind": "path", "states": ["1-1"]}, "study")],
    ids=["grid", "study"],
)
def test_what_an_older_journal_is_of_follows_from_its_trainings(tmp_path, row, kind):
    content = json.loads(ASSETS[2].read_text().splitlines()[0])
    content["search"]["trainings"] = {"a": row}
    (tmp_path / "journal.jsonl").write_text(json.dumps(content) + "\n")
    plan, _ = Journal.of(tmp_path).read()
    assert (plan.kind, plan.trainings) == (kind, {"a": row})


@pytest.mark.parametrize("schema", [1, 2])
def test_journal_of_an_older_schema_goes_on_in_this_one(tmp_path, schema):
    journal = Journal(tmp_path / "journal.jsonl")
    lines = ASSETS[schema].read_bytes().splitlines(keepends=True)
    journal.file.write_bytes(b"".join(lines[:3]))
    plan, search = journal.read()
    assert journal.open(plan).outcomes == search.outcomes
    after = journal.file.read_bytes().splitlines(keepends=True)
    assert json.loads(after[0])["schema"] == 3
    assert after[1:] == lines[1:3]
    assert journal.read()[0].fingerprint == plan.fingerprint
    assert not list(tmp_path.glob("*.tmp"))


def test_weights_trained_again_change_the_checksum_alone(journal):
    first = outcome("cs/1-1")
    journal.append(first)
    journal.append_weights(replace(outcome("cs/1-1", 0.9), sha256="b"))
    _, search = journal.read()
    assert list(search.outcomes.values()) == [replace(first, sha256="b")]

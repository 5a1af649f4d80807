import json
import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_opplan.planning.graph import Edge
from lightning_opplan.planning.journal import SEARCH_DEFAULTS, Journal, JournalError, PlanRecord
from lightning_opplan.planning.search import EdgeOutcome
from tests.planning.test_graph import lattice


def plan(**changes):
    fields = {"monitor": "val/acc", "mode": "max", "seed": 1, "knee": {"patience": 10}, "experiment": {"lr": 0.1}}
    return PlanRecord(graph=lattice(lengths=2, rates=1), **{**fields, **changes})


def outcome(child, value=0.5):
    return EdgeOutcome(
        edge=Edge("start", child), value=value, knee_epoch=3, epochs_run=13,
        curve=((0, 0.0), (1, 0.4), (2, None), (3, 0.5)), seconds=1.5, weights="w.ckpt", details={"why": "…"},
    )  # fmt: skip


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "search" / "journal.jsonl")
    assert journal.open(plan()) == {}
    return journal


def test_outcomes_come_back_as_they_were(journal):
    written = [outcome("cs/1-1"), outcome("us/1-1", None)]
    for each in written:
        journal.append(each)
    assert list(journal.open(plan()).values()) == written


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
    assert list(journal.open(plan())) == [Edge("start", "cs/1-1")]
    journal.append(outcome("us/1-1"))
    assert journal.file.read_bytes() == whole


def test_torn_first_line_is_a_new_journal(journal):
    journal.file.write_bytes(journal.file.read_bytes()[:20])
    assert journal.open(plan()) == {}
    assert journal.read()[0].seed == 1


def test_an_edge_counts_once(journal):
    journal.append(outcome("cs/1-1", 0.5))
    journal.append(outcome("cs/1-1", 0.9))
    assert journal.open(plan())[Edge("start", "cs/1-1")].value == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 2}, "`seed` was 1 and is now 2"),
        ({"monitor": "val/loss"}, "`monitor` was 'val/acc' and is now 'val/loss'"),
        ({"experiment": {"lr": 0.2}}, "`experiment.lr` was 0.1 and is now 0.2"),
        ({"experiment": {}}, "`experiment.lr` was 0.1 and is gone"),
        ({"knee": {"patience": 10, "confirm": 2}}, r"`knee.confirm` is new \(2\)"),
    ],
    ids=["seed", "monitor", "changed", "gone", "new"],
)
def test_journal_of_another_plan_is_refused(journal, changes, message):
    journal.append(outcome("cs/1-1"))
    before = journal.file.read_bytes()
    with pytest.raises(JournalError, match=message):
        journal.open(plan(**changes))
    assert journal.file.read_bytes() == before


def test_journal_without_a_finished_edge_makes_way(journal):
    assert journal.open(plan(seed=2)) == {}
    assert journal.read()[0].seed == 2


def test_equal_plans_have_equal_fingerprints():
    assert plan().fingerprint == plan().fingerprint != plan(seed=2).fingerprint


def test_corrupted_line_is_named(journal):
    journal.append(outcome("cs/1-1"))
    journal.append(outcome("us/1-1"))
    lines = journal.file.read_bytes().splitlines(keepends=True)
    journal.file.write_bytes(lines[0] + b'{"type": "edge"}\n' + lines[2])
    with pytest.raises(JournalError, match="line 2: does not describe a finished edge"):
        journal.read()
    journal.file.write_bytes(lines[0] + b"oops\n" + lines[2])
    with pytest.raises(JournalError, match="line 2: is not JSON"):
        journal.read()


def test_other_schema_is_refused_with_advice(journal):
    journal.file.write_text(journal.file.read_text().replace('"schema": 2', '"schema": 99'))
    with pytest.raises(JournalError, match="has schema 99, this version reads 1 and 2. Go on with the version"):
        journal.open(plan())


def test_missing_journal_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no journal of a search here"):
        Journal(tmp_path / "journal.jsonl").read()


def test_full_disk_leaves_the_journal_as_it_was(journal):
    """A limit on the size of files stands for the full disk: the write fails in the middle of a line."""
    journal.append(outcome("cs/1-1"))
    before = journal.file.read_bytes()
    script = f"""
import resource, signal
from tests.planning.test_journal import outcome
from lightning_opplan.planning.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 40}, {len(before) + 40}))
try:
    Journal({str(journal.file)!r}).append(outcome("us/1-1"))
except OSError as error:
    print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=os.getcwd()
    )
    assert "The journal could not be written" in result.stdout
    assert journal.file.read_bytes() == before
    assert list(journal.open(plan())) == [Edge("start", "cs/1-1")]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


ASSET = Path(__file__).parent / "assets" / "journal-schema-1.jsonl"


def test_journal_of_the_first_schema_is_read():
    plan, outcomes = Journal(ASSET).read()
    assert len(outcomes) == len(plan.graph.edges) == 7
    assert plan.search == dict(SEARCH_DEFAULTS)
    assert (plan.knee["patience"], plan.knee["max_risk"]) == (3, 0.0)
    assert all(outcome.standard_error is None for outcome in outcomes.values())


def test_journal_of_the_first_schema_goes_on_in_the_second(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    lines = ASSET.read_bytes().splitlines(keepends=True)
    journal.file.write_bytes(b"".join(lines[:4]))
    plan, outcomes = journal.read()
    assert journal.open(plan) == outcomes
    after = journal.file.read_bytes().splitlines(keepends=True)
    assert json.loads(after[0])["schema"] == 2
    assert after[1:] == lines[1:4]
    assert not list(tmp_path.glob("*.tmp"))


def test_weights_trained_again_change_the_checksum_alone(journal):
    first = replace(outcome("cs/1-1"), details={"sha256": "a", "devices": 2})
    journal.append(first)
    journal.append_weights(replace(outcome("cs/1-1", 0.9), details={"sha256": "b"}))
    _, outcomes = journal.read()
    assert list(outcomes.values()) == [replace(first, details={"sha256": "b", "devices": 2})]

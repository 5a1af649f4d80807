import json

import pytest

from lightning_opplan.reporting.curve_files import read_curves


def of_csv(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    return read_curves([str(tmp_path / "metrics.csv")])


def test_several_validations_of_an_epoch_lie_within_it(tmp_path):
    (curve,) = of_csv(tmp_path, "epoch,val/loss\n0,4\n0,3\n1,2\n1,1\n")
    assert curve.points == ((0.5, 4.0), (1.0, 3.0), (1.5, 2.0), (2.0, 1.0))


def test_where_the_epoch_falls_another_run_begins(tmp_path):
    first, second = of_csv(tmp_path, "epoch,val/loss\n0,4\n1,3\n0,5\n1,6\n2,7\n")
    assert [curve.name for curve in (first, second)] == ["metrics: val/loss, run 1", "metrics: val/loss, run 2"]
    assert (first.points, second.points) == (((1.0, 4.0), (2.0, 3.0)), ((1.0, 5.0), (2.0, 6.0), (3.0, 7.0)))


def journal(tmp_path, *lines, end="\n"):
    plan = {"type": "plan", "monitor": "val/accuracy", "mode": "max"}
    (tmp_path / "journal.jsonl").write_text("\n".join(map(json.dumps, (plan, *lines))) + end)
    return read_curves([str(tmp_path / "journal.jsonl")])


def test_an_arm_of_a_search_with_a_budget_is_one_curve(tmp_path):
    pieces = [
        {"type": "pause", "edge": ["start", "a"], "curve": [[1, 0.5]]},
        {"type": "pause", "edge": ["start", "b"], "curve": [[1, 0.2]]},
        {"type": "pause", "edge": ["start", "a"], "curve": [[1, 0.5], [2, 0.6]]},
    ]
    assert [(curve.name, len(curve.points)) for curve in journal(tmp_path, *pieces)] == [
        ("start → a", 2),
        ("start → b", 1),
    ]


def test_a_line_that_a_kill_has_left_half_written_is_left_out(tmp_path):
    edge = {"type": "edge", "edge": ["start", "a"], "curve": [[1, 0.5], [2, None]]}
    (curve,) = journal(tmp_path, edge, end='\n{"type": "edge", "ed')
    assert curve.points == ((1, 0.5), (2, None))


def test_what_is_no_number_is_named(tmp_path):
    (tmp_path / "curves.jsonl").write_text('{"values": [1, "2", "nan"]}\n{"values": [1, [2]]}\n')
    with pytest.raises(ValueError, match="curves.jsonl, line 2: `values` must hold numbers"):
        read_curves([str(tmp_path / "curves.jsonl")])

from pathlib import Path

import pytest

from lightning_opplan.reporting import tested
from lightning_opplan.reporting.comparison import spent_on


def row(role, value, num_samples=100):
    title = {"delivered": "delivered", "control": "control (linear)"}[role]
    return tested.Tested(
        title=title, role=role, metric="test/accuracy", value=value, members=(), num_samples=num_samples,
        cost=spent_on([]), file=Path("ensemble.yaml"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ours", "control", "num_samples", "begins"),
    [
        (0.90, 0.80, 100, "Planning is ahead of its control: Delivered 0.9000, control (linear) 0.8000"),
        (0.80, 0.90, 100, "The control is ahead"),
        # √((0.8 · 0.2 + 0.84 · 0.16) / 100) = 0.0543
        (0.84, 0.80, 100, "Planning and its control are level, as far as 100 test samples can tell (± 0.0543)"),
        (0.80, 0.84, 100, "Planning and its control are level, as far as"),
        (0.84, 0.80, 10_000, "Planning is ahead"),
        (0.84, 0.80, None, "Planning is ahead"),
        (0.84, 0.84, 100, "Planning and its control are level: "),
        (1.4, 1.3, 100, "Planning is ahead"),
    ],
)
def test_verdict_says_no_more_than_the_test_can_tell(ours, control, num_samples, begins):
    rows = (row("delivered", ours, num_samples), row("control", control, num_samples))
    assert tested.verdict(rows, "max").startswith(begins)


def test_verdict_of_a_loss_knows_no_such_error():
    rows = (row("delivered", 0.50), row("control", 0.51))
    assert tested.verdict(rows, "min").startswith("Planning is ahead")


def test_there_is_no_verdict_before_both_are_tested():
    assert tested.verdict((row("delivered", None), row("control", 0.5)), "max") is None


@pytest.mark.parametrize(
    ("monitor", "metric"),
    [
        ("val/accuracy", "test/accuracy"), ("val_loss", "test_loss"), ("validation/map", "test/map"),
        ("val/retrieval_map", "test/retrieval_map"), ("eval/acc", "test/acc"), ("Val/acc", "test/acc"),
        ("val/interval", "test/interval"), ("valid_acc", "test_acc"), ("valAcc", "testAcc"), ("valacc", "testacc"),
    ],
)  # fmt: skip
def test_the_test_s_name_of_a_metric_is_found(monitor, metric):
    assert tested._metric(monitor, {metric: 0.5}) == metric
    assert tested._metric(monitor, {"test/other": 0.5}) is None

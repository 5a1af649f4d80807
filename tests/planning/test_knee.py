import math

import numpy as np
import pytest
from scipy.optimize import least_squares

from lightning_opplan.planning.knee import KneeRule
from tests.helpers.scripted import rise_and_fall


def stop_epoch(rule, values, mode="max"):
    for epoch in range(1, len(values) + 1):
        decision = rule.decide(list(enumerate(values[:epoch], start=1)), mode)
        if decision.stop:
            return epoch, decision.knee_epoch
    return None


@pytest.mark.parametrize("patience", [1, 3, 10])
def test_stops_patience_epochs_after_the_knee(patience):
    # Without noise the knee is known as soon as the curve has turned.
    assert stop_epoch(KneeRule(patience=patience), rise_and_fall(12)) == (12 + patience, 12)


def test_first_fit_waits_for_min_points():
    falling = [1 - 0.01 * epoch**2 for epoch in range(1, 40)]
    assert stop_epoch(KneeRule(patience=2, min_points=10), falling) == (10, 1)
    assert stop_epoch(KneeRule(patience=2, min_points=5), falling) == (5, 1)


def test_value_before_training_does_not_count_as_a_point():
    rule = KneeRule(patience=2, min_points=5)
    points = [(epoch, 1 - 0.01 * epoch**2) for epoch in range(5)]
    assert rule.decide(points).fit is None
    assert rule.decide([*points, (5, 0.75)]).stop


def test_confirm_asks_for_consecutive_validations():
    values = rise_and_fall(12)
    assert stop_epoch(KneeRule(patience=3, confirm=4), values) == (12 + 3 + 3, 12)


def test_decision_follows_from_the_points_alone():
    generator = np.random.default_rng(0)
    values = (np.array(rise_and_fall(15, 40)) + generator.normal(0, 0.02, 40)).tolist()
    rule = KneeRule(patience=5, confirm=2)
    points = list(enumerate(values, start=1))
    assert rule.decide(points) == rule.decide(points)


@pytest.mark.parametrize("rule", ["paper", "smoothed"])
@pytest.mark.parametrize("size", [0.0, 0.1, 1.0, 1e-13, -1e9])
def test_a_constant_has_nothing_to_give(rule, size):
    """It stops after the patience, and after as many validations as a fit needs; the first epoch is as good as any."""
    points = [(epoch, size) for epoch in range(1, 60)]
    for patience, expected in ((3, 10), (10, 10), (20, 20)):
        assert stops_at(KneeRule(patience=patience, rule=rule), points) == expected
    assert KneeRule().decide(points[:10]).knee_epoch == 1


@pytest.mark.parametrize("scale", [1.0, 1e-13, 1e9])
def test_a_saturated_curve_stops_and_the_scale_does_not_matter(scale):
    rising = [scale * min(1.0, 1.0 - 0.9 * 0.5**epoch if epoch < 9 else 1.0) for epoch in range(1, 80)]
    stop = stops_at(KneeRule(), list(enumerate(rising, start=1)))
    assert 10 <= stop <= 20
    assert KneeRule().decide(list(enumerate(rising[:stop], start=1))).knee_epoch >= 9


def test_one_bad_validation_decides_nothing():
    """Wherever it is, and however bad: the stop and the knee are those of the curve without it."""
    values = [0.3 + 0.7 * math.exp(-epoch / 8) + 0.0003 * epoch**2 for epoch in range(1, 60)]
    expected = stop_epoch(KneeRule(), values, mode="min")
    for epoch in range(2, 30):
        for bad in (5.0, 1e6, -3.0):
            spoilt = [bad if number == epoch else value for number, value in enumerate(values, start=1)]
            stop, knee = stop_epoch(KneeRule(), spoilt, mode="min")
            assert abs(stop - expected[0]) <= 1, (epoch, bad)
            assert abs(knee - expected[1]) <= 1, (epoch, bad)
            assert knee != epoch


def test_rising_curve_goes_on():
    assert stop_epoch(KneeRule(patience=3), [1 - math.exp(-0.03 * epoch) for epoch in range(80)]) is None


def test_before_the_first_fit_the_best_observed_epoch_is_the_knee():
    rule = KneeRule()
    assert rule.decide([(1, 0.3), (2, 0.5), (3, 0.4)]).knee_epoch == 2
    assert rule.decide([(1, 0.3), (2, 0.5), (3, 0.4)], "min").knee_epoch == 1
    assert rule.decide([(1, None)]).knee_epoch is None


def test_patience_counts_epochs_and_not_validations():
    values = rise_and_fall(12)
    rule = KneeRule(patience=3)
    points = [(epoch / 4, value) for epoch, value in enumerate(values, start=1)]
    stops = [points[: n + 1][-1][0] for n in range(len(points)) if rule.decide(points[: n + 1]).stop]
    assert stops[0] == 3 + 3  # the peak is at 12 quarters


def test_not_finite_values_are_skipped():
    values = rise_and_fall(12)
    values[13] = None
    assert stop_epoch(KneeRule(patience=5), values) == (17, 12)


def test_the_knee_is_always_among_the_plausible_epochs(real_curves):
    for row in real_curves[::15]:
        points = list(enumerate(row["values"], start=1))
        decision = KneeRule().decide(points, row["mode"])
        assert decision.knee_epoch in decision.plausible


@pytest.mark.slow
def test_stop_agrees_with_the_rule_fitted_by_trf(real_curves):
    """The rule of the paper with SciPy's TRF, started well, stops within the same epoch on most curves."""

    def trf_knee(values):
        epochs = np.arange(1, len(values) + 1.0)
        scaled = (values - values.min()) / np.ptp(values)

        def residuals(x):
            return x[0] + x[1] * np.exp(x[2] * epochs) + x[3] * epochs + x[4] * epochs**2 - scaled

        bounds = ([-np.inf, -np.inf, -4, -np.inf, -np.inf], [np.inf, 0, -0.5 / len(epochs), np.inf, 0])
        starts = ([scaled[-1], -1, -rate, 0, -1e-4] for rate in (0.1, 0.5, 1.5) if rate > 0.6 / len(epochs))
        fits = [least_squares(residuals, start, bounds=bounds, x_scale="jac") for start in starts]
        best = min(fits, key=lambda fit: fit.cost).x
        fitted = residuals(best) + scaled
        return int(epochs[fitted.argmax()])

    same, total = 0, 0
    for row in real_curves[::60]:
        values = np.array(row["values"][:60]) * (1 if row["mode"] == "max" else -1)
        asked = (n for n in range(10, len(values) + 1) if n >= trf_knee(values[:n]) + 10)
        ours = stop_epoch(KneeRule(), values.tolist())
        same += (ours[0] if ours else None) == next(asked, None)
        total += 1
    assert same / total >= 0.85


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": -1}, "`patience` must be a number of epochs ≥ 0, got -1"),
        ({"patience": math.inf}, "`patience`"),
        ({"confirm": 0}, "`confirm` must be at least 1, got 0"),
        ({"curve": "cubic"}, "`curve` must be one of"),
        ({"min_points": 4}, "`min_points` must be at least 5, the number of parameters"),
        ({"curve": "multi-power", "min_points": 6}, "`min_points` must be at least 7"),
        ({"min_delta": -0.1}, "`min_delta` must be a number ≥ 0"),
    ],
    ids=["patience", "infinite", "confirm", "curve", "points", "points-multi", "delta"],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        KneeRule(**options)


def plateau(length, *, samples=100, chance=0.25, seed=0):
    """A share of so many samples at chance, then a rise."""
    draw = np.random.default_rng(seed)
    flat = draw.binomial(samples, chance, length) / samples
    rise = 0.9 - 0.65 * np.exp(-np.arange(1, 41) / 6) + 0.01 * draw.standard_normal(40)
    return [(0, 0.0), *((epoch, float(value)) for epoch, value in enumerate([*flat, *rise], start=1))]


def stops_at(rule, points):
    return next((points[n - 1][0] for n in range(2, len(points) + 1) if rule.decide(points[:n]).stop), None)


@pytest.mark.parametrize("length", [15, 30, 45])
def test_late_starters_are_waited_for(length):
    """Without the wait the rule stops within most of the longer plateaus."""
    paper, waiting = KneeRule(wait=0.0), KneeRule(wait=50.0)
    stops = [stops_at(paper, plateau(length, seed=seed)) for seed in range(10)]
    if length > 15:
        assert sum(stop is not None and stop <= length for stop in stops) >= 9
    waited = [stops_at(waiting, plateau(length, seed=seed)) for seed in range(10)]
    assert all(stop is None or stop > length for stop in waited)


def test_the_wait_has_an_end():
    draw = np.random.default_rng(0)
    points = [(0, 0.0), *((epoch, float(draw.binomial(100, 0.25) / 100)) for epoch in range(1, 80))]
    assert 50 <= stops_at(KneeRule(wait=50.0), points) <= 55


def test_a_constant_metric_stops_after_the_patience():
    points = [(epoch, 0.25) for epoch in range(1, 60)]
    assert stops_at(KneeRule(wait=50.0), points) == 10
    assert stops_at(KneeRule(wait=50.0), [(0, 0.0), *points]) == 10


def test_a_curve_that_has_learned_stops_as_in_the_paper():
    draw = np.random.default_rng(1)
    points = [(0, 0.0)] + [
        (epoch, float(0.8 - 0.7 * np.exp(-epoch / 5) + 0.01 * draw.standard_normal())) for epoch in range(1, 80)
    ]
    assert stops_at(KneeRule(wait=50.0), points) == stops_at(KneeRule(), points)


def test_noise_alone_has_rarely_learned():
    """At the level of the test, or less: the signs of the curve's terms are bound."""
    rule = KneeRule()
    draw = np.random.default_rng(2)
    found = [
        rule.has_learned([(epoch, float(draw.binomial(200, 0.3) / 200)) for epoch in range(1, 26)]) for _ in range(400)
    ]
    assert sum(found) <= 0.02 * 400


def test_a_negative_wait_is_refused():
    with pytest.raises(ValueError, match="`wait` must be a number of epochs"):
        KneeRule(wait=-1)

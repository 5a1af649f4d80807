import numpy as np
import pytest

from lightning_opplan.planning.curves import fit_curve
from lightning_opplan.planning.knee import KneeRule
from lightning_opplan.planning.posterior import CurvePosterior
from lightning_opplan.planning.projection import refit

EPOCHS = np.arange(0, 61)
TRUE = 0.8 - 0.6 * np.exp(-0.15 * EPOCHS) - 2e-5 * EPOCHS**2
NOISE = 0.01


def noisy(seed, length=61):
    return TRUE[:length] + NOISE * np.random.default_rng(seed).standard_normal(length)


@pytest.mark.parametrize("family", ["exponential", "power", "multi-exponential"])
def test_many_fits_at_once_equal_one_by_one(family):
    """The grid of rates is the coarse one, so curves may differ by a little."""
    series = np.stack([noisy(seed) for seed in range(5)])
    at = np.arange(0, 70)
    for values, curve in zip(series, refit(family, EPOCHS.astype(float), series, at.astype(float)), strict=True):
        fit = fit_curve(values, family, first_epoch=0)
        assert curve[:61] == pytest.approx(fit.predict(EPOCHS), abs=0.6 * NOISE)
        assert ((curve[:61] - values) ** 2).mean() <= 1.05 * fit.rmse**2


def test_standard_error_is_the_spread_over_repeated_trainings():
    fits = [fit_curve(noisy(seed), first_epoch=0) for seed in range(150)]
    spread = np.std([fit.knee_value for fit in fits])
    errors = [CurvePosterior.of(fit).standard_error for fit in fits]
    assert np.median(errors) == pytest.approx(spread, rel=0.4)


def test_gain_is_probable_while_the_curve_rises_and_improbable_after_its_peak():
    rising, past = (CurvePosterior.of(fit_curve(noisy(3, n), first_epoch=0), 20) for n in (14, 61))
    assert rising.probability_of_gain(0.001) > 0.5
    assert past.probability_of_gain(0.001) < 0.2
    assert CurvePosterior.of(past.fit).probability_of_gain(0.0) == 0.0


def test_optimistic_value_bounds_what_is_reached():
    """Over 200 trainings cut off at half, the true maximum lies above the bound of quantile .999 hardly ever."""
    bounds = [
        CurvePosterior.of(fit_curve(noisy(seed, 25), first_epoch=0), 40).optimistic_value(3.09) for seed in range(200)
    ]
    assert sum(bound < TRUE.max() for bound in bounds) <= 4


def test_mode_min_mirrors_max():
    up, down = (
        CurvePosterior.of(fit_curve(sign * noisy(1, 30), mode=mode, first_epoch=0), 20)
        for sign, mode in ((1, "max"), (-1, "min"))
    )
    assert down.optimistic_value(3.0) == pytest.approx(-up.optimistic_value(3.0))
    assert down.probability_of_gain(0.001) == up.probability_of_gain(0.001)
    assert down.standard_error == pytest.approx(up.standard_error)


def test_draws_are_the_same_each_time():
    fit = fit_curve(noisy(2), first_epoch=0)
    assert CurvePosterior.of(fit).standard_error == CurvePosterior.of(fit).standard_error


def points(values):
    return list(enumerate(values.tolist()))


def test_stop_by_confidence_comes_earlier_than_patience_where_the_end_is_plain():
    values = 0.8 - 0.6 * np.exp(-0.8 * EPOCHS) - 1e-3 * EPOCHS
    paper, fast = KneeRule(), KneeRule(max_risk=0.3)

    def stop(rule):
        return next(n for n in range(10, 61) if rule.decide(points(values[: n + 1])).stop)

    assert stop(fast) < stop(paper) == values.argmax() + 10


def test_stop_by_confidence_waits_for_a_curve_that_still_rises():
    rule = KneeRule(max_risk=0.3)
    assert not any(rule.decide(points(noisy(5)[:n])).stop for n in range(11, 20))


@pytest.mark.parametrize("mode", ["max", "min"])
def test_hopeless_training_is_dropped_after_fourteen_epochs(mode):
    values = noisy(4) if mode == "max" else -noisy(4)
    out_of_reach, within_reach = (0.95, 0.5) if mode == "max" else (-0.95, -0.5)
    rule = KneeRule(horizon=20)
    first = next(n for n in range(2, 61) if rule.decide(points(values[:n]), mode, rival=out_of_reach).dropped)
    assert first - 1 >= 14
    assert not any(rule.decide(points(values[:n]), mode, rival=within_reach).dropped for n in range(2, 61))


def test_observed_value_is_the_validation_at_the_knee():
    values, rule = noisy(6), KneeRule()
    decision = rule.decide(points(values))
    assert rule.valued(points(values)) == (decision.knee_value, CurvePosterior.of(decision.fit).standard_error)
    assert rule.valued(points(values), kind="observed") == (values[decision.knee_epoch], decision.fit.rmse)
    assert rule.valued(points(values[:4])) == (values[:4].max(), None)


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("max_risk", 1.0, "`max_risk` must be a probability below 1, got 1.0"),
        ("min_gain", -0.1, "`min_gain` must be a share ≥ 0 of the span of the values, got -0.1"),
        ("horizon", 0, "`horizon` must be at least 1 epoch, got 0"),
    ],
    ids=["risk", "gain", "horizon"],
)
def test_wrong_options_of_the_stop_are_named(argument, value, message):
    with pytest.raises(ValueError, match=message):
        KneeRule(**{argument: value})

import numpy as np
import pytest
from scipy.optimize import least_squares, nnls

from lightning_opplan.planning.curves import decayed, fit_curve, num_parameters
from tests.helpers.scripted import rise_and_fall

FAMILIES = ["power", "multi-power", "exponential", "multi-exponential"]


def curve(family, epochs):
    rates = [0.6, 2.5] if family == "multi-power" else [0.08, 0.9] if family == "multi-exponential" else [0.3]
    decays = sum(-0.4 * decayed(family, epochs, rate) for rate in rates)
    return 0.9 + decays + 0.0001 * epochs - 0.00008 * epochs**2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("solver", ["varpro", "trf"])
def test_fit_recovers_a_curve_of_its_family(family, solver):
    epochs = np.arange(1, 61)
    values = curve(family, epochs)
    fit = fit_curve(values, family, solver=solver)
    assert fit.rmse < 1e-3 * np.ptp(values)
    assert fit.r_squared > 0.9999
    assert abs(fit.knee_epoch - epochs[values.argmax()]) <= 2
    assert fit.knee_value == pytest.approx(values.max(), abs=1e-3)
    np.testing.assert_allclose(fit.predict(epochs), values, atol=3e-3)


def test_parameters_follow_table_1_and_its_signs():
    epochs = np.arange(0, 50)
    values = 80 - 30 * np.exp(-0.2 * epochs) + 0.05 * epochs - 0.004 * epochs**2
    fit = fit_curve(values, "exponential", first_epoch=0)
    np.testing.assert_allclose(fit.parameters, (80, -30, -0.2, 0.05, -0.004), rtol=5e-2)
    _, amplitude, exponent, _, quadratic = fit.parameters
    assert max(amplitude, exponent, quadratic) < 0


@pytest.mark.slow
@pytest.mark.parametrize("family", ["power", "exponential"])
def test_no_local_optimum_beats_the_fit(family):
    """SciPy's TRF from twenty starts never finds a better fit of a noisy curve."""
    generator = np.random.default_rng(0)
    epochs = np.arange(1, 41.0)
    for _ in range(8):
        rate, noise = generator.uniform(0.05, 1.5), generator.uniform(0.002, 0.05)
        values = 0.8 - 0.5 * decayed(family, epochs, rate) - 1e-4 * generator.uniform(0, 2) * epochs**2
        values += generator.normal(0, noise, len(epochs))

        def residuals(x, values=values):
            return x[0] + x[1] * decayed(family, epochs, -x[2]) + x[3] * epochs + x[4] * epochs**2 - values

        low, high = (0.05, 8) if family == "power" else (0.5 / len(epochs), 4)
        bounds = ([-np.inf, -np.inf, -high, -np.inf, -np.inf], [np.inf, 0, -low, np.inf, 0])
        starts = ([0.8, -0.5, -start, 0, -1e-4] for start in np.geomspace(low * 1.01, high / 1.01, 20))
        best = min(least_squares(residuals, start, bounds=bounds, x_scale="jac").cost * 2 for start in starts)
        assert fit_curve(values, family).rmse ** 2 * len(epochs) <= best * (1 + 1e-3)


@pytest.mark.parametrize("family", ["power", "exponential"])
def test_fit_is_global_on_published_curves(real_curves, family):
    """At most 0.5% above the best of a fine grid of exponents, each solved by SciPy's NNLS."""
    for row in real_curves[::23]:
        values = np.array(row["values"])
        fit = fit_curve(values, family, mode=row["mode"])
        sign = 1 if row["mode"] == "max" else -1
        scaled = sign * (values - values.min()) / np.ptp(values)
        epochs = np.arange(1, len(values) + 1.0)
        low, high = (0.05, 8) if family == "power" else (0.5 / len(epochs), 4)
        best = min(
            nnls(np.stack([np.ones_like(epochs), -np.ones_like(epochs), epochs, -epochs,
                           -(epochs**2) / len(epochs), -decayed(family, epochs, rate)], 1), scaled)[1]
            for rate in np.geomspace(low, high, 300)
        )  # fmt: skip
        assert fit.rmse / np.ptp(values) * np.sqrt(len(values)) <= best * 1.0025


@pytest.mark.slow
def test_every_published_curve_can_be_fitted(real_curves):
    for row in real_curves:
        for family in FAMILIES:
            fit = fit_curve(row["values"], family, mode=row["mode"])
            assert fit.knee_epoch in range(1, len(row["values"]) + 1)
            assert min(row["values"]) - 1e-9 <= fit.knee_value <= max(row["values"]) + 1e-9


def test_min_mode_is_max_mode_of_the_negative():
    values = np.array(rise_and_fall(12, 30)) + np.random.default_rng(1).normal(0, 0.01, 30)
    upwards, downwards = fit_curve(values), fit_curve(-values, mode="min")
    assert upwards.knee_epoch == downwards.knee_epoch
    assert upwards.knee_value == pytest.approx(-downwards.knee_value)
    np.testing.assert_allclose(upwards.predict([3, 9]), -downwards.predict([3, 9]))


@pytest.mark.parametrize("scale", [1e-6, 100.0, 1e9], ids=["tiny", "percent", "huge"])
def test_scale_and_offset_change_nothing(scale):
    values = np.array(rise_and_fall(15, 40)) + np.random.default_rng(2).normal(0, 0.01, 40)
    plain, scaled = fit_curve(values), fit_curve(scale * (values + 3))
    assert plain.knee_epoch == scaled.knee_epoch
    assert scaled.r_squared == pytest.approx(plain.r_squared, abs=1e-6)
    assert scaled.knee_value == pytest.approx(scale * (plain.knee_value + 3), rel=1e-6)


def test_non_finite_values_are_left_out_and_the_others_keep_their_epoch():
    values = rise_and_fall(12, 30)
    holes = [np.nan if epoch in (4, 5, 20) else value for epoch, value in enumerate(values, start=1)]
    fit = fit_curve(holes)
    assert fit.knee_epoch == fit_curve(values).knee_epoch == 12
    assert not {4, 5, 20} & set(fit.epochs)


def test_constant_curve_has_no_knee():
    fit = fit_curve([0.25] * 20)
    assert fit.knee_epoch is None
    assert fit.knee_value == 0.25
    assert (fit.predict([0, 7]) == 0.25).all()


def test_first_epoch_moves_the_knee():
    values = rise_and_fall(12, 30)
    assert fit_curve(values, first_epoch=0).knee_epoch == 11


def test_knee_can_be_the_value_before_training():
    falling = [0.8 - 0.01 * epoch - 0.001 * epoch**2 for epoch in range(15)]
    assert fit_curve(falling, first_epoch=0).knee_epoch == 0


def test_epochs_may_be_fractions():
    epochs = np.arange(1, 61) / 4
    values = 0.9 - 0.5 * np.exp(-epochs) - 0.002 * epochs**2
    fit = fit_curve(values, epochs=epochs)
    assert fit.knee_epoch == epochs[values.argmax()]


def test_rising_curve_has_its_knee_at_the_end():
    values = [1 - np.exp(-0.05 * epoch) for epoch in range(1, 30)]
    assert fit_curve(values).knee_epoch == 29


def test_knee_value_does_not_exceed_what_was_observed():
    values = [0.2, 0.5, 0.8, 0.95, 1.0, 1.0, 1.0, 0.99, 1.0, 1.0, 0.97, 0.9]
    fit = fit_curve(values)
    assert fit.predict(fit.knee_epoch) > 1.0
    assert fit.knee_value == 1.0


def test_min_delta_takes_the_first_epoch_near_the_best():
    values = [1 - np.exp(-0.2 * epoch) for epoch in range(1, 60)]
    assert fit_curve(values).knee_epoch > 40
    assert fit_curve(values, min_delta=0.05).knee_epoch == 15  # 1 - e^(-0.2·15) = 0.950


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": [1, 2, 3, 4]}, "at least 5 finite values for the family 'exponential', got 4"),
        ({"values": [1, 2, 3, 4, 5, 6], "family": "multi-power"}, "at least 7 finite values"),
        ({"values": [[1, 2]] * 9}, "`values` must be one-dimensional"),
        ({"values": range(9), "family": "linear"}, "`family` must be one of 'power', 'multi-power'"),
        ({"values": range(9), "mode": "up"}, "`mode` must be one of 'max', 'min', got 'up'"),
        ({"values": range(9), "solver": "lm"}, "`solver` must be one of 'varpro', 'trf', got 'lm'"),
        ({"values": range(9), "epochs": [1] * 9}, "`epochs` must be ascending"),
        ({"values": range(9), "min_delta": -1}, "`min_delta` must be a number ≥ 0"),
    ],
    ids=["few", "few-multi", "shape", "family", "mode", "solver", "epochs", "delta"],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_curve(arguments.pop("values"), arguments.pop("family", "exponential"), **arguments)


def test_number_of_parameters():
    assert [num_parameters(family) for family in FAMILIES] == [5, 7, 5, 7]

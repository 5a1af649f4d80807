import numpy as np
import pytest

from lightning_opplan.planning.knee import KneeRule
from lightning_opplan.planning.smoothed import smoothed_stop


def reference(points, patience, min_points, sign=1):
    """In words: means over at most two validations on each side, those of the last two left out."""
    finite = [(epoch, sign * value) for epoch, value in points if value is not None and epoch > 0]
    values = [value for _, value in finite]
    if len(values) < max(min_points, 5):
        return False
    means = [(finite[i][0], np.mean(values[max(i - 2, 0) : i + 3])) for i in range(len(values) - 2)]
    last = finite[-1][0]
    early = [mean for epoch, mean in means if epoch <= last - 2 * patience]
    if not early:
        return False
    best_epoch, best = max(means, key=lambda pair: (round(pair[1], 12), -pair[0]))
    second = [values[i] - 2 * values[i + 1] + values[i + 2] for i in range(len(values) - 2)]
    sigma = 1.4826 * np.median(np.abs(second)) / np.sqrt(6)
    return best - max(early) <= sigma + 1e-12 and last - best_epoch >= min(patience, 5)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("mode", ["max", "min"])
def test_it_stops_when_the_words_say(seed, mode):
    draw = np.random.default_rng(seed)
    sign = 1 if mode == "max" else -1
    epochs = np.arange(1, 61) if seed % 2 else np.arange(1, 61) / 2
    values = sign * (0.8 - 0.6 * np.exp(-epochs / 8) + 0.03 * draw.standard_normal(60))
    points = [
        (float(epoch), None if draw.random() < 0.05 else float(value))
        for epoch, value in zip(epochs, values, strict=True)
    ]
    for until in range(1, 61):
        expected = reference(points[:until], 5, 8, sign)
        assert smoothed_stop(points[:until], patience=5, min_points=8, mode=mode) == expected


def test_the_best_validation_is_kept_of_equal_ones_the_last():
    points = [(0, 0.1), (1, 0.5), (2, 0.7), (3, 0.7), (4, 0.6)]
    decision = KneeRule(rule="smoothed").decide(points)
    assert (decision.knee_epoch, decision.knee_value) == (3, 0.7)
    assert not decision.stop
    assert KneeRule(rule="smoothed").valued(points) == (0.7, None)


def test_a_rule_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="`rule` must be one of 'paper', 'smoothed'"):
        KneeRule(rule="smooth")

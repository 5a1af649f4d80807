"""How fast, how exact and how like the paper's rule the curve fits are, on a file of published validation curves.

    python benchmarks/curves.py curves.jsonl

The file has a JSON object per line with `values` (one per epoch, from epoch 1) and `mode` (max or min). Reported are

- the time of a fit of 100 epochs, and its ratio to one run of SciPy's bounded TRF on the same values;
- the excess of each fit's squared error over the best of 3 000 exponents, each solved by SciPy's NNLS on its own;
- the share of curves on which the rule stops at the epoch at which it stops with fits by TRF from good starts;
- how far below the fitted maximum, in RMSE, an epoch ever was that became the knee later.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares, nnls

from lightning_opplan.planning.curves import decayed, fit_curve
from lightning_opplan.planning.knee import KneeRule

PATIENCE = 10


def scaled(row):
    values = np.array(row["values"], dtype=float) * (1 if row["mode"] == "max" else -1)
    return (values - values.min()) / np.ptp(values)


def trf(values, starts, epochs=None):
    """The best of SciPy's bounded TRF from some rates: predictions, and the seconds of one start."""
    epochs = np.arange(1, len(values) + 1.0) if epochs is None else epochs

    def residuals(x):
        return x[0] + x[1] * np.exp(x[2] * epochs) + x[3] * epochs + x[4] * epochs**2 - values

    bounds = ([-np.inf, -np.inf, -4, -np.inf, -np.inf], [np.inf, 0, -0.5 / len(epochs), np.inf, 0])
    began = time.perf_counter()
    fits = []
    for rate in starts:
        rate = min(max(rate, 0.51 / len(epochs)), 3.9)
        # A good start: with the rate given, the rest is linear.
        design = np.stack([np.ones_like(epochs), -np.exp(-rate * epochs), epochs, -(epochs**2)], 1)
        linear = nnls(np.column_stack([design, -design[:, [0, 2]]]), values)[0]
        start = [linear[0] - linear[4], -linear[1] - 1e-9, -rate, linear[2] - linear[5], -linear[3] - 1e-12]
        fits.append(least_squares(residuals, start, bounds=bounds, x_scale="jac", max_nfev=400))
    best = min(fits, key=lambda fit: fit.cost)
    return residuals(best.x) + values, (time.perf_counter() - began) / len(starts)


def stop_by_trf(values):
    for count in range(10, len(values) + 1):
        fitted, _ = trf(values[:count], (0.05, 0.3, 1.2))
        if count >= int(fitted.argmax()) + 1 + PATIENCE:
            return count
    return None


def stop_by_rule(values):
    rule = KneeRule(patience=PATIENCE)
    points = list(enumerate(values.tolist(), start=1))
    return next((count for count in range(10, len(values) + 1) if rule.decide(points[:count]).stop), None)


def excess(values, family):
    """Squared error of the fit over the best of a fine grid of exponents, minus one."""
    epochs = np.arange(1, len(values) + 1.0)
    low, high = (0.05, 8.0) if family == "power" else (0.5 / len(epochs), 4.0)
    centred = (epochs - epochs.mean()) / len(epochs)
    free = np.stack([np.ones_like(epochs), centred], 1)
    basis, _ = np.linalg.qr(free)
    rest = lambda columns: columns - basis @ (basis.T @ columns)  # noqa: E731
    target, square = rest(values), rest(centred**2)
    grid = np.geomspace(low, high, 3000)
    decays = rest(np.stack([decayed(family, epochs, rate) for rate in grid], 1))
    decays /= np.linalg.norm(decays, axis=0)
    square /= np.linalg.norm(square)
    best = min(nnls(np.stack([-square, -decay], 1), target)[1] for decay in decays.T)
    return fit_curve(values, family).rmse ** 2 * len(values) / max(best**2, 1e-300) - 1


def latest_gap(values):
    """How many RMSE below the maximum the final knee ever was."""
    gaps = {}
    knee = None
    for count in range(10, len(values) + 1):
        fit = fit_curve(values[:count])
        if fit.knee_epoch is None:  # constant so far
            continue
        fitted = fit.predict(fit.epochs)
        for epoch, gap in enumerate((fitted.max() - fitted) / max(fit.rmse, 1e-12), start=1):
            gaps[epoch] = max(gaps.get(epoch, 0.0), gap)
        knee = fit.knee_epoch
        if count >= knee + PATIENCE:
            break
    return gaps.get(knee, 0.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", type=Path)
    parser.add_argument("--every", type=int, default=1, help="Use every n-th curve.")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.curves.read_text().splitlines()][:: options.every]
    curves = [scaled(row) for row in rows]
    print(f"{len(curves)} curves of {min(map(len, curves))} to {max(map(len, curves))} epochs, seed-free")

    hundred = [np.interp(np.linspace(0, 1, 100), np.linspace(0, 1, len(curve)), curve) for curve in curves[:100]]
    ours, theirs = [], []
    for values in hundred:
        fit_curve(values)
        began = time.perf_counter()
        fit_curve(values)
        ours.append(time.perf_counter() - began)
        theirs.append(trf(values, (0.1,))[1])
    print(
        f"fit of 100 epochs: median {statistics.median(ours) * 1e3:.2f} ms, "
        f"{statistics.median(theirs) / statistics.median(ours):.0f} times faster than one start of TRF"
    )
    for family in ("exponential", "power"):
        over = [excess(curve, family) for curve in curves]
        print(f"{family}: worst excess over the grid {max(over):.3%}, none failed")
    gaps = [latest_gap(curve) for curve in curves]
    print(f"epochs that became the knee were at most {max(gaps):.2f} RMSE below the maximum before")
    stops = [(stop_by_rule(curve), stop_by_trf(curve)) for curve in curves]
    same = sum(a == b for a, b in stops)
    stopped = [(a, b) for a, b in stops if a is not None or b is not None]
    same_stopped = sum(a == b for a, b in stopped)
    print(
        f"stop epoch equal to the rule by TRF: {same / len(stops):.1%} of all curves, "
        f"{same_stopped / len(stopped):.1%} of the {len(stopped)} on which either stops"
    )


if __name__ == "__main__":
    main()

import importlib
import math
import pickle
import sys

import numpy as np
import optuna
import pytest

from lightning_opplan.integrations.optuna import KneePruner
from lightning_opplan.planning.knee import KneeRule

STEPS = np.arange(1, 61)
GOOD = 0.9 * (1 - np.exp(-STEPS / 5))
HOPELESS = 0.5 * (1 - np.exp(-STEPS / 5))
SLOW = 0.99 * (1 - np.exp(-STEPS / 15))  # ahead of the good one from step 36 on
PEAKED = 0.89 * (1 - np.exp(-STEPS / 4)) - 0.00002 * STEPS**2  # no better than the good one, from step 24 on worse


def noisy(values, seed, noise=0.005):
    return values + noise * np.random.default_rng(seed).standard_normal(len(values))


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def study_of(pruner, *, direction="maximize", completed=()):
    study = optuna.create_study(direction=direction, pruner=pruner)
    for curve in completed:
        values = dict(enumerate(map(float, curve)))
        study.add_trial(optuna.trial.create_trial(value=float(curve[-1]), intermediate_values=values))
    return study


def reports_until_pruned(study, values):
    """How many values a trial reports until it is pruned; `None` if it completes."""
    trial = study.ask()
    for step, value in enumerate(values):
        trial.report(float(value), step)
        if trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return step + 1
    study.tell(trial, float(values[-1]))
    return None


@pytest.mark.parametrize("seed", range(5))
def test_hopeless_trial_is_pruned_as_soon_as_its_bound_may_be_asked(seed):
    study = study_of(KneePruner(), completed=[noisy(GOOD, 100)])
    assert 14 <= reports_until_pruned(study, noisy(HOPELESS, seed)) <= 30


@pytest.mark.parametrize("seed", range(5))
def test_trial_that_will_be_ahead_late_is_kept(seed):
    study = study_of(KneePruner(), completed=[noisy(GOOD, 100)])
    assert reports_until_pruned(study, noisy(SLOW, seed)) is None


def test_losses_are_pruned_at_the_same_steps():
    for curve in (HOPELESS, SLOW, PEAKED):
        up = study_of(KneePruner(), completed=[noisy(GOOD, 100)])
        down = study_of(KneePruner(), direction="minimize", completed=[1 - noisy(GOOD, 100)])
        assert reports_until_pruned(up, noisy(curve, 1)) == reports_until_pruned(down, 1 - noisy(curve, 1))


def test_nothing_is_pruned_before_a_trial_has_completed():
    study = study_of(KneePruner())
    running = study.ask()
    running.report(0.99, 0)
    assert reports_until_pruned(study, noisy(HOPELESS, 0)) is None


def test_knee_behind_a_trial_ends_it_at_the_step_of_the_rule_unless_it_is_ahead():
    rule = KneeRule(patience=8)
    curve = noisy(PEAKED, 3)
    points = [(step, float(value)) for step, value in enumerate(curve, start=1)]
    asked = next(number for number in range(1, 61) if rule.decide(points[:number]).stop)
    assert reports_until_pruned(study_of(KneePruner(rule), completed=[curve - 0.01]), curve) is None
    # Ahead by less than the bound's error, and behind the trial at its knee.
    assert reports_until_pruned(study_of(KneePruner(rule), completed=[curve + 0.002]), curve) == asked


def test_lucky_report_of_the_rival_costs_nobody_a_trial():
    lucky = noisy(GOOD, 100)
    lucky[40] = 0.97
    better = noisy(GOOD + 0.02, 1, noise=0.001)
    assert better.max() < lucky.max()
    assert reports_until_pruned(study_of(KneePruner(), completed=[lucky]), better) is None


def test_bound_reaches_to_the_end_of_the_longest_completed_trial():
    late = 0.01 * np.arange(1, 101)  # a straight line: 0.3 at step 30, 1.0 at its end
    rival = 0.8 * (1 - np.exp(-np.arange(1, 101) / 5))
    assert reports_until_pruned(study_of(KneePruner(), completed=[rival]), noisy(late, 0, 0.001)) is None
    assert reports_until_pruned(study_of(KneePruner(), completed=[rival[:30]]), noisy(late, 0, 0.001)) is not None


def test_plateau_at_chance_is_waited_for_if_the_rule_says_so():
    late = np.concatenate([np.full(25, 0.1), 0.95 * (1 - np.exp(-np.arange(1, 36) / 5))])
    late[:25] += 0.01 * np.random.default_rng(0).standard_normal(25)
    assert reports_until_pruned(study_of(KneePruner(), completed=[GOOD]), late) < 25
    assert reports_until_pruned(study_of(KneePruner(KneeRule(wait=40)), completed=[GOOD]), late) is None


def test_value_that_is_not_finite():
    values = [0.1, 0.2, math.nan, 0.3]
    assert reports_until_pruned(study_of(KneePruner()), values) == 3
    assert reports_until_pruned(study_of(KneePruner(KneeRule(check_finite=False))), values) is None


def test_completed_trials_without_reports_are_no_rivals():
    study = study_of(KneePruner())
    study.add_trial(optuna.trial.create_trial(value=5.0))
    assert reports_until_pruned(study, noisy(HOPELESS, 0)) is None


def test_step_before_the_first():
    study = study_of(KneePruner(first_step=10), completed=[GOOD])
    with pytest.raises(ValueError, match="`first_step` must be the step that a trial reports after its first epoch"):
        reports_until_pruned(study, [0.1])
    with pytest.raises(ValueError, match="`first_step` must be a whole number, got 0.5"):
        KneePruner(first_step=0.5)


def test_pruner_travels_and_stands_in_another_one():
    expected = reports_until_pruned(study_of(KneePruner(), completed=[GOOD]), noisy(HOPELESS, 0))
    copied = pickle.loads(pickle.dumps(KneePruner()))
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        patient = optuna.pruners.PatientPruner(copied, patience=0)
    study = study_of(patient, completed=[GOOD])
    # A value below the best so far: the first such one after the bound allows it.
    assert reports_until_pruned(study, noisy(HOPELESS, 0)) >= expected
    assert reports_until_pruned(study_of(copied, completed=[GOOD]), noisy(HOPELESS, 0)) == expected


def test_study_ends_with_the_best_of_all_settings_for_fewer_steps():
    rates = [0.9, 0.3, 0.5, 0.94, 0.6, 0.85]

    def objective(trial):
        top = rates[trial.number]
        curve = noisy(top * (1 - np.exp(-STEPS / 5)), trial.number)
        for step, value in enumerate(curve):
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(curve.max())

    study = optuna.create_study(direction="maximize", pruner=KneePruner())
    study.optimize(objective, n_trials=len(rates))
    assert study.best_trial.number == 3
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "PRUNED", "PRUNED", "COMPLETE", "PRUNED", "PRUNED"]


def test_missing_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    for name in ("optuna.pruners", "lightning_opplan.integrations.optuna"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lightning-opplan\[optuna\]'"):
        importlib.import_module("lightning_opplan.integrations.optuna")


def test_pruner_loads_no_torch():
    import subprocess

    code = "import sys, lightning_opplan.integrations.optuna\nprint(*{'torch', 'lightning', 'av'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert result.stdout.split() == [], result.stderr
    assert result.returncode == 0, result.stderr

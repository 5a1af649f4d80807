import math

import pytest

from lightning_opplan.planning.path import OptimizationPath, PathStep, stages_of
from lightning_opplan.planning.schedule import Anneal, AnnealedState, FixedStage, annealed_state


def test_linear_is_constant_and_then_falls_to_zero():
    anneal = Anneal(share=0.3, shape="linear")
    assert [anneal.factor(progress) for progress in (0, 0.5, 0.7)] == [1, 1, 1]
    assert anneal.factor(0.85) == pytest.approx(0.5)
    assert anneal.factor(1.0) == 0


def test_sqrt_falls_as_one_minus_the_root():
    anneal = Anneal(share=0.5, shape="sqrt")
    assert anneal.factor(0.625) == pytest.approx(1 - math.sqrt(0.25))


def test_cosine_over_the_whole_is_half_a_cosine():
    anneal = Anneal(share=1.0, shape="cosine")
    for progress in (0.0, 0.1, 0.6, 1.0):
        assert anneal.factor(progress) == pytest.approx(0.5 * (1 + math.cos(math.pi * progress)))


def test_none_stays():
    assert Anneal(shape="none").factor(0.99) == 1.0
    assert FixedStage(epochs=3, offset=0, total=10, anneal=Anneal()).is_constant
    assert not FixedStage(epochs=3, offset=7, total=10, anneal=Anneal()).is_constant


def test_a_path_falls_over_its_last_states_together():
    steps = (PathStep(state="a", epochs=6), PathStep(state="b", epochs=4))
    first, second = stages_of(OptimizationPath(steps=steps, anneal=Anneal(share=0.5)))
    assert first.rate_factor(5) == 1.0
    assert first.rate_factor(6) == second.rate_factor(0) == pytest.approx(0.8)
    assert second.rate_factor(4) == 0.0


def test_an_annealed_state_falls_over_its_own_epochs():
    steps = (PathStep(state="a", epochs=7), PathStep(state="b", epochs=3, setting={"anneal": {"share": 0.3}}))
    first, second = stages_of(OptimizationPath(steps=steps))
    assert first.is_constant
    assert [second.rate_factor(epoch) for epoch in (0, 1.5, 3)] == [1.0, 0.5, 0.0]


def test_an_annealed_state_takes_its_share_of_all_epochs():
    assert AnnealedState(share=0.3).stage(70).epochs == 30
    assert AnnealedState(share=0.3).stage(0).epochs == 1
    assert AnnealedState(epochs=12).stage(70).epochs == 12


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Anneal(shape="steep"), "`anneal.shape` must be one of 'linear', 'sqrt'"),
        (lambda: Anneal(share=0), "`anneal.share` must be a share"),
        (lambda: Anneal.of(3), "`anneal` must be a mapping"),
        (lambda: Anneal.of({"shar": 1}), "Did you mean 'share'"),
        (lambda: annealed_state("linear"), "must be a mapping such as"),
        (lambda: annealed_state({"epochs": 0}), "`anneal.epochs` must be above 0"),
        (lambda: annealed_state({"share": 1.0}), "above 0 and below 1"),
    ],
    ids=["shape", "share", "no mapping", "name", "state", "state's epochs", "state's share"],
)
def test_what_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_stage_within_which_the_rate_only_rises_is_not_constant():
    warm = Anneal(share=0.3, warmup=0.2)
    assert not FixedStage(epochs=10, offset=0, total=20, anneal=warm).is_constant
    assert FixedStage(epochs=4, offset=6, total=20, anneal=warm).is_constant
    assert FixedStage(epochs=10, offset=0, total=20).is_constant

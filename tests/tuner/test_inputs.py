from functools import partial

import pytest
from lightning.pytorch import Trainer

from lightning_opplan import TransitionGraph
from lightning_opplan.tuner.edges.recipe import FactoryRecipe
from lightning_opplan.tuner.inputs import check_inputs
from tests.helpers import toy

SIZES = TransitionGraph({"small": {"data.batch_size": 4}}, [("start", "small")])


class Slow(toy.Classifier):
    num_made = 0

    def __init__(self, **options):
        super().__init__(**options)
        type(self).num_made += 1


class Looking(Slow):
    num_made = 0

    def check_data(self, data):
        raise ValueError(f"Batches of {data.batch_size} are too small.")


@pytest.mark.parametrize("model", [Slow, partial(Slow, width=4)])
def test_no_model_is_built_that_could_not_look_at_its_data(model):
    check_inputs(FactoryRecipe(model=model, data=toy.Quadrants, trainer=Trainer), SIZES)
    assert Slow.num_made == 0


@pytest.mark.parametrize("model", [Looking, partial(Looking, width=4), lambda **options: Looking(**options)])
def test_model_that_looks_at_its_data_refuses_states(model):
    with pytest.raises(ValueError, match="1 of the 1 states cannot be trained. small: Batches of 4 are too small"):
        check_inputs(FactoryRecipe(model=model, data=toy.Quadrants, trainer=Trainer), SIZES)

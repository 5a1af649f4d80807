import pytest
import torch

from lightning_opplan import get_model, list_models
from lightning_opplan.models.registry import register


@pytest.mark.parametrize("name", list_models())
def test_every_network_can_be_built_and_scores_clips(name):
    with torch.device("meta"):
        network = get_model(name, num_classes=7)
        clips = torch.empty(2, 3, 16, 64, 64)
    assert network(clips).shape == (2, 7)
    assert all(head.shape == (2, 7) for head in network.forward_heads(clips))


def test_names_can_be_filtered():
    assert list_models("*tiny") == ["dg_p3d_tiny"]


def test_unknown_name_lists_the_close_ones():
    with pytest.raises(ValueError, match="got 'dg_p3d_resnet5'. Did you mean 'dg_p3d_resnet50'"):
        get_model("dg_p3d_resnet5", num_classes=2)


def test_name_cannot_be_taken_twice():
    with pytest.raises(ValueError, match="must be new, got 'dg_p3d_tiny'"):
        register("dg_p3d_tiny")(lambda: None)

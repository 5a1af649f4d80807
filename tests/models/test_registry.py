import pytest

from lightning_opplan import get_model, list_models
from lightning_opplan.models.registry import register


def test_all_networks_of_the_paper_are_there():
    families = ("p3d", "g_p3d", "dg_p3d", "i3d", "r2plus1d", "lgd_p3d")
    expected = {f"{family}_resnet{depth}" for family in families for depth in (18, 34, 50, 101, 152)}
    assert set(list_models()) == expected | {"slowfast_resnet50", "slowfast_resnet101", "dg_p3d_tiny"}


def test_names_can_be_filtered():
    assert list_models("*tiny") == ["dg_p3d_tiny"]
    assert list_models("slowfast_*") == ["slowfast_resnet101", "slowfast_resnet50"]


def test_unknown_name_lists_the_close_ones():
    with pytest.raises(ValueError, match="got 'dg_p3d_resnet5'. Did you mean 'dg_p3d_resnet50'"):
        get_model("dg_p3d_resnet5", num_classes=2)


@pytest.mark.parametrize("name", ["i3d_resnet18", "dg_p3d_resnet18", "slowfast_resnet50"])
def test_unknown_option_lists_the_close_ones(name):
    with pytest.raises(ValueError, match=f"must be those of '{name}', got 'dropuot'. Did you mean 'dropout'"):
        get_model(name, num_classes=2, dropuot=0.5)


def test_name_cannot_be_taken_twice():
    with pytest.raises(ValueError, match="must be new, got 'dg_p3d_tiny'"):
        register("dg_p3d_tiny")(lambda: None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0}, "`alpha` must be a positive integer, got 0"),
        ({"alpha": 2.5}, "`alpha` must be a positive integer, got 2.5"),
        ({"lateral_frames": 4}, "`lateral_frames` must be odd, got 4"),
    ],
    ids=["zero", "fraction", "lateral_frames"],
)
def test_wrong_option_of_slowfast_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        get_model("slowfast_resnet50", num_classes=2, **options)

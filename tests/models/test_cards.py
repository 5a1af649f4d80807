"""The model cards say what the networks are."""

import re

import pytest

from lightning_opplan import list_models
from tests.helpers.networks import gmacs, num_parameters, on_meta
from tests.helpers.scripted import PROJECT

CARDS = PROJECT / "docs" / "models"
ROW = re.compile(r"^\| `(\w+)((?:, \w+=\d+)*)` \| ([\d,]+) \| ([\d.| ]+) \|$", re.MULTILINE)
ROWS = [(card.stem, *match) for card in sorted(CARDS.glob("*.md")) for match in ROW.findall(card.read_text())]

EACH = [row if "resnet18" in row[1] else pytest.param(*row, marks=pytest.mark.slow) for row in ROWS]


def test_every_network_is_on_the_card_of_its_family():
    assert {(family, name) for family, name, *_ in ROWS} == {
        (name.rpartition("_")[0], name) for name in list_models() if name != "dg_p3d_tiny"
    }


@pytest.mark.parametrize(
    ("family", "name", "options", "parameters", "operations"), EACH, ids=[row[1] + row[2] for row in ROWS]
)
def test_parameters_and_operations_on_the_cards_are_right(family, name, options, parameters, operations):
    network = on_meta(name, **{key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", options)})
    assert f"{num_parameters(network):,}" == parameters
    clips = [(32, 224), (32, 256)] if family == "slowfast" else [(16, 224), (64, 224), (64, 256)]
    # Longer and larger clips for one depth of each family.
    counted = clips if "resnet50" in name else clips[:1]
    assert [f"{gmacs(network, *clip):.2f}" for clip in counted] == operations.split(" | ")[: len(counted)]

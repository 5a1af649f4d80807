from types import SimpleNamespace

import pytest
import torch

from lightning_opplan.tuner.edges.meter import Meter


@pytest.mark.parametrize(
    ("batch", "samples", "frames"),
    [
        (torch.zeros(4, 3, 16, 8, 8), 4, 64),
        ((torch.zeros(4, 3, 16, 8, 8), torch.zeros(4)), 4, 64),
        ({"video": torch.zeros(2, 3, 8, 4, 4), "label": torch.zeros(2)}, 2, 16),
        ([torch.zeros(5, 7), [torch.zeros(5)]], 5, None),
        ("words", 1, None),
        (torch.tensor(1.0), 1, None),
    ],
    ids=["clips", "tuple", "mapping", "points", "text", "scalar"],
)
def test_samples_and_frames_are_counted_on_all_devices(batch, samples, frames):
    meter = Meter()
    for number in range(3):
        meter.on_train_batch_start(None, None, batch, number)
    for _ in range(2):  # of the validations, the last one counts
        meter.on_validation_epoch_start(None, None)
        meter.on_validation_batch_start(None, None, batch, 0)
    assert meter.spent(SimpleNamespace(world_size=2)) == (2, 6 * samples, frames and 6 * frames, 2 * samples)


def test_a_resumed_training_counts_on():
    meter, resumed = Meter(), Meter()
    meter.on_train_batch_start(None, None, torch.zeros(4, 3, 16, 8, 8), 0)
    resumed.load_state_dict({**meter.state_dict(), "seconds": 100.0})
    resumed.on_train_batch_start(None, None, torch.zeros(4, 3, 16, 8, 8), 1)
    assert resumed.spent(SimpleNamespace(world_size=1)).num_samples == 8
    assert resumed.seconds > 100.0

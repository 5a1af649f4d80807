"""A configuration of the toy search for the command line."""

from tests.helpers import toy

CONFIG = {
    "seed_everything": 3,
    "model": {"class_path": "tests.helpers.toy.Classifier", "init_args": {"lr": 0.5}},
    "data": {"class_path": "tests.helpers.toy.Quadrants"},
    "trainer": {"accelerator": "cpu", "devices": 1, "max_epochs": 8, "logger": False},
    "plan": {
        "monitor": "val/score",
        "start_value": -1.0,
        "knee": {"patience": 2, "min_points": 5},
        "graph": {
            "axes": [
                {"name": "batch", "settings": [{"data.batch_size": 8}, {"data.batch_size": 32}], "reversible": True},
                {"name": "rate", "settings": [{"model.lr": 0.1}, {"model.lr": 0.01}]},
            ]
        },
    },
}


class Faulty(toy.Classifier):
    def training_step(self, batch, batch_idx):
        return 1 / 0

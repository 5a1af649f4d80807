import pytest
import torch
from lightning.pytorch import Trainer

from lightning_opplan.modules import VideoClassifier, memory_format
from lightning_opplan.modules.memory_format import device_name, is_last_quicker, measured

CPU = torch.device("cpu")


def row(mode="training", ratio=1.2, precision="float32", compiled=False, device=None):
    return {
        "device": device or device_name(CPU), "precision": precision, "mode": mode, "compiled": compiled,
        "ratio": ratio,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ([row()], True),
        ([row(ratio=1.03)], True),
        ([row(ratio=1.02)], False),
        ([row(ratio=0.6)], False),
        ([row(mode="scoring")], False),
        ([row(precision="bfloat16")], False),
        ([row(compiled=True)], False),
        ([row(device="cpu of somebody else")], False),
        ([], False),
    ],
    ids=[
        "quicker", "just", "within the noise", "slower", "other mode", "other precision", "other compilation",
        "other device", "nobody measured",
    ],
)  # fmt: skip
def test_channels_are_last_where_that_was_quicker(table, expected):
    found = is_last_quicker(CPU, precision="32-true", mode="training", compiled=False, table=table)
    assert found is expected


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-true", "64-true"])
def test_precision_that_nobody_measured(precision):
    table = [row(precision=precision), row()]
    assert not is_last_quicker(CPU, precision=precision, mode="training", compiled=False, table=table)


def test_table_has_each_row_once():
    keys = [(each["device"], each["precision"], each["mode"], each["compiled"]) for each in measured()]
    assert len(keys) == len(set(keys))
    assert {each["precision"] for each in measured()} <= {"float32", "bfloat16"}
    assert all(each["ratio"] > 0 for each in measured())


def test_processor_is_named_by_its_instructions(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    assert device_name(CPU) == "cpu AVX512 avx512_bf16"
    assert device_name(torch.device("mps")) == "mps"
    for mode, expected in ("scoring", False), ("training", True):
        assert is_last_quicker(CPU, precision="bf16-mixed", mode=mode, compiled=False) is expected


@pytest.mark.parametrize("quicker", ["training", "scoring"])
def test_network_changes_its_format_with_the_mode(monkeypatch, quicker):
    slower = {"training": "scoring", "scoring": "training"}[quicker]
    monkeypatch.setattr(memory_format, "measured", lambda: (row(quicker, 1.5), row(slower, 0.5)))
    is_last = {}

    class Watched(VideoClassifier):
        def on_fit_start(self):
            is_last["training"] = self.is_last
            super().on_fit_start()

        def on_test_start(self):
            is_last["scoring"] = self.is_last

        @property
        def is_last(self):
            return self.network.conv1.weight.is_contiguous(memory_format=torch.channels_last_3d)

    model = Watched("dg_p3d_tiny", 2)
    assert not model.is_last, "where nothing is known of the device yet"
    clips = torch.randn(2, 3, 16, 32, 32)
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    samples = [(clip, label) for label, clip in enumerate(clips)]
    trainer.fit(model, torch.utils.data.DataLoader(samples, 2), torch.utils.data.DataLoader(samples, 2))
    views = [(clip[None], label) for label, clip in enumerate(clips)]
    trainer.test(model, torch.utils.data.DataLoader(views, 2), verbose=False)
    assert is_last == {quicker: True, slower: False}

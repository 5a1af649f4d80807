"""Whether channels come first or last in memory, by what has been measured to be quicker.

`benchmarks/networks.py --write` measures a device and writes the table, ``memory_formats.json`` beside this module.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal

import torch

__all__ = ["Mode", "device_name", "is_last_quicker", "measured"]

Mode = Literal["training", "scoring"]

_MARGIN: Final = 1.03
"""How many times as quick channels last must be: a network timed against itself differs by up to 2%."""

_PRECISIONS: Final = {"32-true": "float32", "bf16-mixed": "bfloat16"}


def device_name(device: torch.device) -> str:
    """Name what of a device decides which kernels run: a GPU's model, or the instructions of a processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    instructions = [torch.backends.cpu.get_cpu_capability()]
    # Kernels in bfloat16 come from these; without them it is computed in float32, and slowly.
    instructions += [name for name, is_there in _bfloat16_instructions().items() if is_there]
    return " ".join(["cpu", *instructions])


def is_last_quicker(
    device: torch.device,
    *,
    precision: str,
    mode: Mode,
    compiled: bool,
    table: Sequence[Mapping[str, Any]] | None = None,
) -> bool:
    """Whether channels last is quicker; ``False``, which is PyTorch's own format, where nobody has measured it.

    Args:
        device: Where the network runs.
        precision: As the Trainer calls it, such as ``"bf16-mixed"``.
        mode: Training, or scoring without gradients.
        compiled: Whether the network is compiled.
        table: Rows of measurements, by default those of the package.
    """
    wanted = (device_name(device), _PRECISIONS.get(precision), mode, compiled)
    for row in measured() if table is None else table:
        if (row["device"], row["precision"], row["mode"], row["compiled"]) == wanted:
            return bool(row["ratio"] >= _MARGIN)
    return False


@cache
def measured() -> tuple[dict[str, Any], ...]:
    """Return what has been measured; `ratio` says how many times as quick channels last were."""
    return tuple(json.loads(files(__package__).joinpath("memory_formats.json").read_text(encoding="utf-8")))


def _bfloat16_instructions() -> dict[str, bool]:
    supported = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return {name: bool(supported.get(name)) for name in ("avx512_bf16", "amx_bf16")}

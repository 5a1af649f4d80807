"""Ways to compute the convolutions of a network, against `conv3d` in the channels-first format.

    python benchmarks/convolutions.py --network dg_p3d_resnet50 --clips 16x112 --batch 2

All convolutions of the network run one after the other as in a training step, forward and then backward, without what
stands between them. The ways take turns. Times are the fastest of each kind of kernel in ms, totals are ratios.

- conv3d first, conv3d last: as they are, in both memory formats;
- conv2d last: 1×3×3 as conv2d over the frames, 3×1×1 as conv2d over (frames, positions), 1×1×1 as conv2d; no copies;
- folded stem last: conv3d last, but for the stem, whose four frames become channels of one image;
- matmul last: conv3d last, but for 1×1×1 as a matrix product. This is what the package does.
"""

import argparse
import time
from collections import defaultdict

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional

from lightning_opplan import get_model


def conv3d(layer, x):
    return nn.Conv3d.forward(layer, x)


def conv2d(layer, x):
    batch, frames = x.shape[0], x.shape[2]
    stride, padding, size = layer.stride, layer.padding, layer.kernel_size
    if is_stem(layer):
        return conv3d(layer, x)
    if size[0] == 1:
        images = x.transpose(1, 2).flatten(0, 1)
        out = functional.conv2d(images, layer.weight[:, :, 0], stride=stride[1:], padding=padding[1:])
        return out.unflatten(0, (batch, frames)).transpose(1, 2)
    x = x[..., :: stride[1], :: stride[2]]
    out = functional.conv2d(x.flatten(3), layer.weight[..., 0], padding=(padding[0], 0))
    return out.unflatten(3, x.shape[3:])


def is_stem(layer):
    return layer.in_channels <= 3


def folded_stem(layer, x):
    if not is_stem(layer):
        return conv3d(layer, x)
    batch, channels, frames, height, width = x.shape
    steps, per_step = frames // layer.kernel_size[0], layer.kernel_size[0]
    images = x.reshape(batch, channels, steps, per_step, height, width).transpose(1, 2)
    images = images.reshape(batch * steps, channels * per_step, height, width)
    images = images.contiguous(memory_format=torch.channels_last)
    kernel = layer.weight.flatten(1, 2).contiguous(memory_format=torch.channels_last)
    out = functional.conv2d(images, kernel, stride=layer.stride[1:], padding=layer.padding[1:])
    return out.unflatten(0, (batch, steps)).transpose(1, 2)


def ours(layer, x):
    return layer(x)


WAYS = {
    "conv3d first": (False, conv3d),
    "conv3d last": (True, conv3d),
    "conv2d last": (True, conv2d),
    "folded stem last": (True, folded_stem),
    "matmul last": (True, ours),
}


def calls_of(network, clips):
    """The layers that run, with inputs of the shapes that they see."""
    shapes = []
    layers = [module for module in network.modules() if isinstance(module, nn.Conv3d)]
    handles = [
        layer.register_forward_hook(lambda module, inputs, _: shapes.append((module, inputs[0].shape)))
        for layer in layers
    ]
    with torch.no_grad():
        network(clips)
    for handle in handles:
        handle.remove()
    return shapes


def seen(layer, shape, like, last):
    """An input as the layer sees it: the stem's comes from the loader, channels first, and needs no gradient."""
    x = torch.randn(shape, device=like.device, dtype=like.dtype)
    if is_stem(layer):
        return x
    return x.to(memory_format=torch.channels_last_3d if last else torch.contiguous_format).requires_grad_()


def run(calls, compute, synchronise):
    """Seconds forward and backward by kind of kernel."""
    spent = defaultdict(float)
    outputs = []

    def timed(kind, function, *arguments):
        synchronise()
        began = time.perf_counter()
        result = function(*arguments)
        synchronise()
        spent[kind] += time.perf_counter() - began
        return result

    for layer, x in calls:
        layer.weight.grad = x.grad = None
        kind = "×".join(map(str, layer.kernel_size))
        outputs.append((f"{kind} backward", timed(f"{kind} forward", compute, layer, x)))
    for kind, out in reversed(outputs):
        timed(kind, out.backward, torch.ones_like(out))
    return spent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="dg_p3d_resnet50")
    parser.add_argument("--clips", default="16x112", help="Frames and crop in px.")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", type=torch.device)
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    frames, size = map(int, options.clips.split("x"))
    dtype = torch.bfloat16 if options.bf16 else torch.float32
    synchronise = torch.cuda.synchronize if options.device.type == "cuda" else lambda: None

    prepared = {}
    for last in (False, True):
        network = get_model(options.network, num_classes=2).to(options.device, dtype)
        if last:
            network.to_channels_last()
        clips = torch.randn(options.batch, 3, frames, size, size).to(options.device, dtype)
        prepared[last] = [(layer, seen(layer, shape, clips, last)) for layer, shape in calls_of(network, clips)]
    turns = {way: [] for way in WAYS}
    for _ in range(options.turns):
        for way, (last, compute) in WAYS.items():
            turns[way].append(run(prepared[last], compute, synchronise))
    fastest = {way: {kind: min(turn[kind] for turn in spent) for kind in spent[0]} for way, spent in turns.items()}

    where = f"torch {torch.__version__}, {torch.get_num_threads()} threads ({torch.backends.cpu.get_cpu_capability()})"
    title = (
        f"{options.network}, {options.batch} × {options.clips}, {dtype}, {options.device.type}, {where}, seed 0, ms"
    )
    kinds = sorted(fastest["conv3d first"])
    table = Table("way", *kinds, "total", "ratio", title=title)
    plain = sum(fastest["conv3d first"].values())
    for way, spent in fastest.items():
        total = sum(spent.values())
        cells = [f"{spent[kind] * 1e3:.0f}" for kind in kinds]
        table.add_row(way, *cells, f"{total * 1e3:.0f}", f"{plain / total:.2f}×")
    Console(width=150).print(table)


if __name__ == "__main__":
    main()

"""The networks in plain functions of a state dictionary, written from the description of Figure 3 and the papers.

Nothing here knows the modules; names are those of the authors' checkpoints.
"""

from torch import cat, stack
from torch.nn.functional import batch_norm, conv3d, linear, max_pool3d, relu

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class Reference:
    def __init__(self, family, state, depths):
        self.family, self.state, self.depths = family, state, depths

    def conv(self, x, name, stride=(1, 1, 1), padding=(0, 0, 0)):
        return conv3d(x, self.state[f"{name}.weight"], stride=stride, padding=padding)

    def norm(self, x, name):
        parts = [self.state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return batch_norm(x, *parts)

    def fc(self, x, name):
        return linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def spatiotemporal(self, x, prefix, number, kind, stride, activation):
        """A 3×3×3 convolution in the way of the family, and its BN; `activation` comes after it."""
        conv, conv_t, bn = f"{prefix}.conv{number}", f"{prefix}.conv{number}_t", f"{prefix}.bn{number}"
        s = (1, stride, stride)
        if self.family == "i3d":
            return activation(self.norm(self.conv(x, conv, s, (1, 1, 1)), bn))
        space = self.conv(x, conv, s, (0, 1, 1))
        if self.family == "r2plus1d" or kind == "A":
            return activation(self.norm(self.conv(space, conv_t, padding=(1, 0, 0)), bn))
        if kind == "B":
            return activation(self.norm(space + self.conv(x, conv_t, s, (1, 0, 0)), bn))
        space = activation(self.norm(space, bn))
        return activation(space + self.conv(space, conv_t, padding=(1, 0, 0)))

    def block(self, x, g, prefix, index, stride):
        kind = "ABC"[index % 3]
        nothing = lambda y: y  # noqa: E731
        if f"{prefix}.conv3.weight" in self.state:
            y = relu(self.norm(self.conv(x, f"{prefix}.conv1"), f"{prefix}.bn1"))
            y = self.spatiotemporal(y, prefix, 2, kind, stride, relu)
            y = self.norm(self.conv(y, f"{prefix}.conv3"), f"{prefix}.bn3")
        elif kind == "B" and self.family not in ("i3d", "r2plus1d"):
            t = self.conv(x, f"{prefix}.conv1_t", (1, stride, stride), (1, 0, 0))
            y = self.conv(x, f"{prefix}.conv1", (1, stride, stride), (0, 1, 1))
            y = relu(self.norm(y + t, f"{prefix}.bn1"))
            t = self.conv(t, f"{prefix}.conv2_t", padding=(1, 0, 0))
            y = self.norm(self.conv(y, f"{prefix}.conv2", padding=(0, 1, 1)) + t, f"{prefix}.bn2")
        else:
            y = self.spatiotemporal(x, prefix, 1, kind, stride, relu)
            y = self.spatiotemporal(y, prefix, 2, kind, 1, nothing)
        shortcut = x
        if f"{prefix}.downsample.0.weight" in self.state:
            shortcut = self.norm(self.conv(x, f"{prefix}.downsample.0", (1, stride, stride)), f"{prefix}.downsample.1")
        if self.family in ("g_p3d", "dg_p3d"):
            context = self.fc(relu(self.fc(y.mean((2, 3, 4)), f"{prefix}.fc1")), f"{prefix}.fc2")
            y = y + context[..., None, None, None]
        if self.family == "lgd_p3d":
            g = relu(
                self.fc(self.fc(x.mean((2, 3, 4)), f"{prefix}.fc1"), f"{prefix}.fc2")
                + self.fc(self.fc(g, f"{prefix}.fc3"), f"{prefix}.fc4")
            )
            y = y + self.fc(self.fc(g, f"{prefix}.fc5"), f"{prefix}.fc6")[..., None, None, None]
        return relu(y + shortcut), g

    def stage(self, x, g, name, number, stride):
        for position in range(self.depths[number]):
            index = sum(self.depths[:number]) + position
            x, g = self.block(x, g, f"{name}.{position}", index, stride if position == 0 else 1)
        return x, g

    def heads(self, clips, training=False):
        """Scores of each head; with batch statistics nowhere."""
        size = self.state["conv1.weight"].shape[-1]
        x = relu(self.norm(self.conv(clips, "conv1", (4, 2, 2), (0, size // 2, size // 2)), "bn1"))
        x = max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        g = x.mean((2, 3, 4))
        for number in range(3):
            x, g = self.stage(x, g, f"layer{number + 1}", number, 1 if number == 0 else 2)
        temporal, g = self.stage(x, g, "layer4", 3, 2)
        scores = [self.fc(temporal.mean((2, 3, 4)), "fc")]
        if self.family == "dg_p3d":
            spatial, _ = self.stage(max_pool3d(x, (4, 1, 1), (4, 1, 1)), g, "layer4_dual", 3, 1)
            scores.append(self.fc(spatial.mean((2, 3, 4)), "fc_dual"))
        if self.family == "lgd_p3d" and training:
            scores.append(self.fc(g, "fc_g"))
        return scores

    def scores(self, clips):
        return stack(self.heads(clips)).mean(0)


class SlowFastReference(Reference):
    """Two pathways, from Table 1 of the SlowFast paper."""

    def scores(self, clips, alpha):
        slow, fast = clips[:, :, ::alpha], clips
        slow = relu(self.norm(self.conv(slow, "slow.conv1", (1, 2, 2), (0, 3, 3)), "slow.bn1"))
        fast = relu(self.norm(self.conv(fast, "fast.conv1", (1, 2, 2), (2, 3, 3)), "fast.bn1"))
        slow, fast = (max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1)) for x in (slow, fast))
        for number in range(4):
            frames = self.state[f"lateral.{number}.0.weight"].shape[2]
            carried = self.conv(fast, f"lateral.{number}.0", (alpha, 1, 1), (frames // 2, 0, 0))
            slow = cat([slow, relu(self.norm(carried, f"lateral.{number}.1"))], 1)
            slow = self.pathway(slow, "slow", number, sees_time=number >= 2)
            fast = self.pathway(fast, "fast", number, sees_time=True)
        return self.fc(cat([slow.mean((2, 3, 4)), fast.mean((2, 3, 4))], 1), "fc")

    def pathway(self, x, name, number, sees_time):
        for position in range(self.depths[number]):
            prefix = f"{name}.layer{number + 1}.{position}"
            stride = 2 if number > 0 and position == 0 else 1
            # ResNet-101 sees time in as many blocks as ResNet-50.
            padding = (1, 0, 0) if sees_time and position < DEPTHS[50][number] else (0, 0, 0)
            y = relu(self.norm(self.conv(x, f"{prefix}.conv1", padding=padding), f"{prefix}.bn1"))
            y = relu(self.norm(self.conv(y, f"{prefix}.conv2", (1, stride, stride), (0, 1, 1)), f"{prefix}.bn2"))
            y = self.norm(self.conv(y, f"{prefix}.conv3"), f"{prefix}.bn3")
            if position == 0:
                x = self.norm(self.conv(x, f"{prefix}.downsample.0", (1, stride, stride)), f"{prefix}.downsample.1")
            x = relu(x + y)
        return x

"""Train and test any registered video network as a classifier."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor
from torch.nn import functional
from torch.optim import SGD
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy
from typing_extensions import override

from lightning_opplan.callbacks import FreezeBatchNorm
from lightning_opplan.models import get_model
from lightning_opplan.models.video_resnet import VideoNetwork
from lightning_opplan.modules.memory_format import is_last_quicker

__all__ = ["VideoClassifier"]

_TOP_KS = (1, 3, 5)


class VideoClassifier(LightningModule):
    """A network, its loss, its accuracy and its optimizer, at a constant learning rate.

    Logs ``train/loss``, and for validation and test ``…/loss``, ``…/top1``, ``…/top3``, ``…/top5`` and ``…/accuracy``,
    the mean of the three, which is what the paper plans for. Where there are no more classes than that, it is left out
    of the mean: it is always right.

    Args:
        network: Name of a registered network, see `list_models`.
        num_classes: Number of classes.
        weights: What the network starts from: `"imagenet"`, or a file, see `get_model`. By default at random.
        learning_rate: Constant rate of SGD.
        learning_rate_factor: Factor on it, so that one axis of a plan can lower the rate that another one sets.
        momentum: Nesterov momentum.
        weight_decay: Weight decay of all parameters.
        dropout: Probability of dropping a feature before each classifier.
        in_channels: Channels of the clips: 3 for RGB, 2 for optical flow.
        network_options: Further options of the network, such as ``{"alpha": 8}`` of SlowFast.
        freeze_batch_norm: Train with every BatchNorm frozen but the first, for clips so long that few fit on a device.
        views_per_pass: Clips that the test scores at once; a limit on its memory.
        channels_last: Whether to keep channels last in memory. By default what has been measured to be quicker for the
            device, precision and mode at hand, or else PyTorch's own format, see `is_last_quicker`.
        compile: Compile the network, once per shape of its clips. That takes minutes, and less the second time. Every
            fit makes the process forget what it compiled before.
        activation_checkpointing: Keep only the input of each residual block for the backward pass, and compute the
            rest again: about a third more time for less memory, for long clips.

    References:
        Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, section 5.2. Optimizer settings, the sum of the
        heads' losses and the mean accuracy follow the released implementation.
    """

    def __init__(
        self,
        network: str,
        num_classes: int,
        *,
        weights: str | None = None,
        learning_rate: float = 0.01,
        learning_rate_factor: float = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        dropout: float = 0.5,
        in_channels: int = 3,
        network_options: dict[str, Any] | None = None,
        freeze_batch_norm: bool = False,
        views_per_pass: int = 10,
        channels_last: bool | None = None,
        compile: bool = False,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        # A checkpoint has all weights; it must not ask for those that the training started from.
        self.save_hyperparameters(ignore=["weights"])
        self.network = get_model(
            network,
            weights=weights,
            num_classes=num_classes,
            dropout=dropout,
            in_channels=in_channels,
            activation_checkpointing=activation_checkpointing,
            **(network_options or {}),
        )
        if channels_last:
            self.network.to_channels_last()
        # One collection per stage: the sanity check and validation must not share state with the test.
        self.val_metrics = _accuracies(num_classes, prefix="val/")
        self.test_metrics = _accuracies(num_classes, prefix="test/")
        self.val_loss, self.test_loss = MeanMetric(), MeanMetric()

    @override
    def setup(self, stage: str) -> None:
        classes = getattr(getattr(self.trainer, "datamodule", None), "classes", None)
        given = self.hparams["num_classes"]
        if classes and len(classes) != given:
            raise ValueError(
                f"`num_classes` must be that of the data ({len(classes)}: {', '.join(map(str, classes[:3]))}"
                f"{', …' if len(classes) > 3 else ''}), got {given}."
            )
        if self.hparams["channels_last"] is None:
            is_last = is_last_quicker(
                self.trainer.strategy.root_device,
                precision=self.trainer.precision,
                mode="training" if stage == "fit" else "scoring",
                compiled=self.hparams["compile"],
            )
            self.network.to(memory_format=torch.contiguous_format)
            if is_last:
                self.network.to_channels_last()

    @override
    def configure_callbacks(self) -> list[Callback]:
        return [FreezeBatchNorm()] if self.hparams["freeze_batch_norm"] else []

    @override
    def configure_optimizers(self) -> SGD:
        return SGD(
            [parameter for parameter in self.parameters() if parameter.requires_grad],
            lr=self.hparams["learning_rate"] * self.hparams["learning_rate_factor"],
            momentum=self.hparams["momentum"],
            nesterov=self.hparams["momentum"] > 0,
            weight_decay=self.hparams["weight_decay"],
            fused=self._fused,
        )

    @override
    def on_fit_start(self) -> None:
        if self.hparams["compile"]:
            # Every edge of a plan makes a new module. Kernels for the last one's clips are of no use to it, and count
            # against the compiler's limit.
            torch.compiler.reset()

    @override
    def on_train_start(self) -> None:
        """Fit what a checkpoint brought to this module, which may have another memory format and precision."""
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                # As `configure_optimizers` has it, not as the checkpoint does.
                if "fused" in optimizer.defaults:
                    group["fused"] = optimizer.defaults["fused"]
            for parameter, state in optimizer.state.items():
                for key, value in state.items():
                    # Fused SGD takes for granted that all have the same strides.
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        state[key] = torch.empty_like(parameter).copy_(value)

    @override
    def forward(self, clips: Tensor) -> Tensor:
        """Score clips ``(B, C, T, H, W)``: ``(B, num_classes)``."""
        return VideoNetwork.fuse(self._score_heads(clips))

    @override
    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        clips, labels = batch
        losses = [functional.cross_entropy(scores, labels) for scores in self._score_heads(clips)]
        loss = torch.stack(losses).sum()
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    @override
    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        clips, labels = batch
        scores = self(clips)
        self.val_metrics.update(scores, labels)
        self.val_loss.update(functional.cross_entropy(scores, labels), weight=len(labels))

    @override
    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val", self.val_metrics, self.val_loss)

    @override
    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        views, labels = batch
        scores = self.score_views(views)
        self.test_metrics.update(scores, labels)
        self.test_loss.update(functional.cross_entropy(scores, labels), weight=len(labels))

    @override
    def on_test_epoch_end(self) -> None:
        self._log_metrics("test", self.test_metrics, self.test_loss)

    @override
    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.score_views(batch[0])

    def score_views(self, views: Tensor) -> Tensor:
        """Average the scores of all views of each video (section 5.1).

        Args:
            views: ``(B, V, C, T, H, W)``.

        Returns:
            ``(B, num_classes)``.
        """
        passes = torch.split(views.flatten(0, 1), self.hparams["views_per_pass"])
        scores = torch.cat([self(clips) for clips in passes])
        return scores.reshape(*views.shape[:2], -1).mean(dim=1)

    @property
    def _fused(self) -> bool | None:
        """Whether SGD updates all parameters at once; ``None`` leaves it to PyTorch."""
        # Lightning's mixed precision clips no gradients of fused optimizers.
        mixed = self._trainer is not None and isinstance(self._trainer.precision_plugin, MixedPrecision)
        return True if self.device.type in ("cpu", "cuda") and not mixed else None

    def _score_heads(self, clips: Tensor) -> tuple[Tensor, ...]:
        score = _compiled() if self.hparams["compile"] else _score_heads
        return score(self.network, clips)

    def _log_metrics(self, stage: str, metrics: MetricCollection, loss: MeanMetric) -> None:
        accuracies: dict[str, Any] = metrics.compute()
        telling = [k for k in _TOP_KS if k == 1 or k < self.hparams["num_classes"]]
        mean = torch.stack([accuracies[f"{stage}/top{k}"] for k in telling]).mean()
        self.log_dict({**accuracies, f"{stage}/accuracy": mean, f"{stage}/loss": loss.compute()}, sync_dist=True)
        metrics.reset()
        loss.reset()


def _accuracies(num_classes: int, *, prefix: str) -> MetricCollection:
    metrics: dict[str, Metric | MetricCollection] = {
        f"top{k}": MulticlassAccuracy(num_classes, top_k=min(k, num_classes), average="micro") for k in _TOP_KS
    }
    # Without compute groups: metrics whose counts agree by chance in the first batch would be merged for ever.
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)


def _score_heads(network: VideoNetwork, clips: Tensor) -> tuple[Tensor, ...]:
    return network.forward_heads(clips)


@cache
def _compiled() -> Callable[[VideoNetwork, Tensor], tuple[Tensor, ...]]:
    # A function of the network, so that a copied module does not score with the network of its original. Not dynamic:
    # the sanity check's batches would make the kernels of the training slower.
    return torch.compile(_score_heads, dynamic=False)

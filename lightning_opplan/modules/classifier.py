"""What a classifier of clips and one of images have in common."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn import functional
from torch.optim import SGD, AdamW, Optimizer
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy
from typing_extensions import override

from lightning_opplan.callbacks import ExponentialWeightAveraging, FreezeBatchNorm
from lightning_opplan.inputs import described
from lightning_opplan.messages import checked_choice
from lightning_opplan.models import get_model
from lightning_opplan.models.network import ScoringNetwork, Takes, numbered, whole_modules
from lightning_opplan.modules.memory_format import is_last_quicker
from lightning_opplan.modules.mixing import Mixing
from lightning_opplan.modules.parameter_groups import Decayed, parameter_groups

__all__ = ["Classifier"]

_TOP_KS = (1, 3, 5)
_OptimizerName = Literal["sgd", "adamw"]


class Classifier(LightningModule):
    """A network, its loss, its accuracy and its optimizer, at a constant learning rate.

    Logs ``train/loss``, and for validation and test ``…/loss``, ``…/top1``, ``…/top3``, ``…/top5`` and ``…/accuracy``,
    the mean of the three, which is what the paper plans for. Where there are no more classes than that, it is left out
    of the mean: it is always right.

    Args:
        network: Name of a network, see `list_models`.
        num_classes: Number of classes.
        weights: What the network starts from: a name of weights, or a file, see `get_model`. By default at random.
        learning_rate: Constant rate, with `layer_decay` that of the head.
        learning_rate_factor: Factor on it, so that one axis of a plan can lower the rate that another one sets.
        optimizer: ``"sgd"`` or ``"adamw"``.
        momentum: Nesterov momentum of SGD.
        betas: Of AdamW: how slowly the means of gradients and of their squares move.
        weight_decay: Weight decay.
        decayed: What it is for: ``"all"`` parameters, or ``"weights"`` alone, without norms, biases and embeddings.
        layer_decay: What the rate is multiplied by from each stage of the network to the one below it.
        label_smoothing: Share of every label that is spread over all classes.
        mixup: α of mixup; 0 for none.
        cutmix: α of CutMix; 0 for none. With both, each batch is mixed in one of the two ways.
        ema_decay: Validate, hand over and keep an exponential moving average of the weights, which keeps so much of
            itself at each step. By default there is none.
        frozen_stages: Stages of the network, from the stem on, that are not trained; with all of them the classifier
            alone is. Their batch normalisation uses its running statistics, and they drop nothing.
        dropout: Probability of dropping a feature before each classifier; by default that of the network, 0.5 for our
            own ones. For a network of another library what it calls its dropout, if it has any: torchvision's
            transformers drop within their blocks, too.
        in_channels: Channels of the inputs: 3 for RGB.
        network_options: Further options of the network, such as ``{"alpha": 8}`` of SlowFast.
        freeze_batch_norm: Train with every BatchNorm frozen but the first.
        channels_last: Whether to keep channels last in memory. By default what has been measured to be quicker for the
            device, precision and mode at hand, or else PyTorch's own format, see `is_last_quicker`.
        compile: Compile the network, once per shape of its inputs. That takes minutes, and less the second time. Every
            fit makes the process forget what it compiled before.
        activation_checkpointing: Keep only the input of each block for the backward pass, and compute the rest again:
            about a third more time for less memory.

    Raises:
        ValueError: If an argument is out of range, or the network takes something else.
    """

    takes: ClassVar[Takes]

    def __init__(
        self,
        network: str,
        num_classes: int,
        *,
        weights: str | None = None,
        learning_rate: float = 0.01,
        learning_rate_factor: float = 1.0,
        optimizer: _OptimizerName = "sgd",
        momentum: float = 0.9,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 1e-4,
        decayed: Decayed = "all",
        layer_decay: float = 1.0,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        ema_decay: float | None = None,
        frozen_stages: int = 0,
        dropout: float | None = None,
        in_channels: int = 3,
        network_options: dict[str, Any] | None = None,
        freeze_batch_norm: bool = False,
        channels_last: bool | None = None,
        compile: bool = False,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        checked_choice("optimizer", optimizer, get_args(_OptimizerName))
        checked_choice("decayed", decayed, get_args(Decayed))
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"`label_smoothing` must be a share of at least 0 and below 1, got {label_smoothing!r}.")
        # A checkpoint has all weights; it must not ask for those that the training started from.
        self.save_hyperparameters(ignore=["weights"])
        self.network = get_model(
            network,
            weights=weights,
            num_classes=num_classes,
            in_channels=in_channels,
            activation_checkpointing=activation_checkpointing,
            **({} if dropout is None else {"dropout": dropout}),
            **(network_options or {}),
        )
        if self.network.takes != self.takes:
            raise ValueError(
                f"`network` must be one for {self.takes}, got {network!r}, which takes {self.network.takes}."
            )
        if self.network.options:  # its weights have said them, and a checkpoint has to know
            self.hparams["network_options"] = {**(network_options or {}), **self.network.options}
        self._frozen_names = self._freeze(frozen_stages)
        self.mixing = Mixing(num_classes, mixup=mixup, cutmix=cutmix)
        if channels_last:
            self.network.to_channels_last()
        # One collection per stage: the sanity check and validation must not share state with the test.
        self.val_metrics = _accuracies(num_classes, prefix="val/")
        self.test_metrics = _accuracies(num_classes, prefix="test/")
        self.val_loss, self.test_loss = MeanMetric(), MeanMetric()

    def _freeze(self, num_stages: int) -> frozenset[str]:
        """Fix the parameters of the first stages, and return their names."""
        limit = len(self.network.stages)
        if not 0 <= num_stages <= limit:
            raise ValueError(
                f"`frozen_stages` must be from 0 to {limit}, the stages of {self.hparams['network']!r} before its "
                f"classifier, got {num_stages!r}."
            )
        names = frozenset(name for name, number in numbered(self.network).items() if number < num_stages)
        for name, parameter in self.network.named_parameters():
            if name in names:
                parameter.requires_grad_(False)
        return names

    @override
    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self._rest_frozen()
        return self

    def _rest_frozen(self) -> None:
        for module in whole_modules(self.network, self._frozen_names):
            module.eval()

    def check_data(self, data: Any) -> None:
        """Let data know what the network was made for, and see that it takes what they give.

        Args:
            data: Of a module with ``adopt``, which takes a `Preprocessing`, or ``None`` from a network that was made
                for nothing special, and ``input_shapes``, the shape of an input by split, both are used; other data
                are left alone.

        Raises:
            ValueError: If the network does not take the inputs of a split.
        """
        adopt, known = getattr(data, "adopt", None), self.network.preprocessing
        if adopt is not None:
            adopt(known)  # or nothing, where the data have served another network before
        shapes: Mapping[str, Any] = getattr(data, "input_shapes", {})
        tried: dict[tuple[int, ...], str] = {}
        for split, shape in shapes.items():
            if shape not in tried:
                tried[shape] = split
                try:
                    self.network.check_shape(shape)
                except ValueError as error:
                    raise ValueError(
                        f"The network must take what the data give, got {self.takes} of {described(shape)} "
                        f"({shape[0]} channels) for {split}: {error}"
                    ) from error

    @override
    def setup(self, stage: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        classes = getattr(data, "classes", None)
        given = self.hparams["num_classes"]
        if classes and len(classes) != given:
            raise ValueError(
                f"`num_classes` must be that of the data ({len(classes)}: {', '.join(map(str, classes[:3]))}"
                f"{', …' if len(classes) > 3 else ''}), got {given}."
            )
        self.check_data(data)
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
        callbacks: list[Callback] = [FreezeBatchNorm()] if self.hparams["freeze_batch_norm"] else []
        # What is tested is the average already.
        is_fit = self._trainer is None or self._trainer.state.fn in (None, TrainerFn.FITTING)
        if self.hparams["ema_decay"] is not None and is_fit:
            callbacks.append(ExponentialWeightAveraging(self.hparams["ema_decay"]))
        return callbacks

    @override
    def configure_optimizers(self) -> Optimizer:
        groups = parameter_groups(
            {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad},
            {f"network.{name}": number for name, number in numbered(self.network).items()},
            learning_rate=self.hparams["learning_rate"] * self.hparams["learning_rate_factor"],
            weight_decay=self.hparams["weight_decay"],
            decayed=self.hparams["decayed"],
            layer_decay=self.hparams["layer_decay"],
        )
        if self.hparams["optimizer"] == "adamw":
            return AdamW(groups, betas=tuple(self.hparams["betas"]), fused=self._fused)
        momentum = self.hparams["momentum"]
        return SGD(groups, momentum=momentum, nesterov=momentum > 0, fused=self._fused)

    @override
    def on_fit_start(self) -> None:
        if self.hparams["compile"]:
            # Every edge of a plan makes a new module. Kernels for the last one's inputs are of no use to it, and count
            # against the compiler's limit.
            torch.compiler.reset()

    @override
    def on_train_start(self) -> None:
        """Fit what a checkpoint brought to this module, which may have another memory format and precision."""
        self._rest_frozen()  # not before: Lightning warns of modules that are not in training
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                # As `configure_optimizers` has it, not as the checkpoint does.
                if "fused" in optimizer.defaults:
                    group["fused"] = optimizer.defaults["fused"]
            for parameter, state in optimizer.state.items():
                for key, value in state.items():
                    # Fused optimizers take for granted that all have the same strides.
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        state[key] = torch.empty_like(parameter).copy_(value)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        """Score clips ``(B, C, T, H, W)`` or images ``(B, C, H, W)``: ``(B, num_classes)``."""
        return ScoringNetwork.fuse(self._score_heads(inputs))

    @override
    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, labels = self.mixing(*batch)
        smoothing = self.hparams["label_smoothing"]
        losses = [
            functional.cross_entropy(scores, labels, label_smoothing=smoothing) for scores in self._score_heads(inputs)
        ]
        loss = torch.stack(losses).sum()
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    @override
    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        inputs, labels = batch
        scores = self(inputs)
        self.val_metrics.update(scores, labels)
        self.val_loss.update(functional.cross_entropy(scores, labels), weight=len(labels))

    @override
    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val", self.val_metrics, self.val_loss)

    @override
    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        inputs, labels = batch
        scores = self.score_whole(inputs)
        self.test_metrics.update(scores, labels)
        self.test_loss.update(functional.cross_entropy(scores, labels), weight=len(labels))

    @override
    def on_test_epoch_end(self) -> None:
        self._log_metrics("test", self.test_metrics, self.test_loss)

    @override
    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.score_whole(batch[0])

    def score_whole(self, inputs: Tensor) -> Tensor:
        """Score what the test gives: ``(B, num_classes)``."""
        scores: Tensor = self(inputs)
        return scores

    @property
    def _fused(self) -> bool | None:
        """Whether the optimizer updates all parameters at once; ``None`` leaves it to PyTorch."""
        # Lightning's mixed precision clips no gradients of fused optimizers.
        mixed = self._trainer is not None and isinstance(self._trainer.precision_plugin, MixedPrecision)
        return True if self.device.type in ("cpu", "cuda") and not mixed else None

    def _score_heads(self, inputs: Tensor) -> tuple[Tensor, ...]:
        score = _compiled() if self.hparams["compile"] else _score_heads
        return score(self.network, inputs)

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


def _score_heads(network: ScoringNetwork, inputs: Tensor) -> tuple[Tensor, ...]:
    return network.forward_heads(inputs)


@cache
def _compiled() -> Callable[[ScoringNetwork, Tensor], tuple[Tensor, ...]]:
    # A function of the network, so that a copied module does not score with the network of its original. Not dynamic:
    # the sanity check's batches would make the kernels of the training slower.
    return torch.compile(_score_heads, dynamic=False)

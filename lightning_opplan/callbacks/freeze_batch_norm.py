"""Freeze the batch normalisation of a network, all but the first layer."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

__all__ = ["FreezeBatchNorm"]


class FreezeBatchNorm(Callback):
    """Freeze every BatchNorm layer but the first: running statistics in use and unchanged, affine parameters fixed.

    Long clips leave room for few of them per device, too few for statistics of their own. The first layer, the stem's,
    stays free. The layers stay frozen through ``model.train()``.

    Raises:
        ValueError: If the module has fewer than two BatchNorm layers, so that nothing would be frozen.

    References:
        The released implementation of Qiu et al., ICML 2021, for its longest clips; the paper does not mention it.
    """

    def __init__(self) -> None:
        self._frozen: list[nn.Module] = []
        self._hooks: list[RemovableHandle] = []

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if is_overridden("configure_model", pl_module):
            self._freeze_after_configuring(pl_module)
        else:
            self._freeze(pl_module)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Only now: `sync_batchnorm` has put other layers in the place of those that were frozen.
        self._frozen = _batch_norms(pl_module)[1:]
        # A training step may call `train()` itself.
        self._hooks = [layer.register_forward_pre_hook(_keep_frozen) for layer in self._frozen]

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        for layer in self._frozen:
            _keep_frozen(layer)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _freeze_after_configuring(self, pl_module: LightningModule) -> None:
        """Freeze once `configure_model`, which comes after `setup`, has made the layers."""
        configure = pl_module.configure_model

        def configure_and_freeze() -> None:
            del pl_module.configure_model  # the method of the class again
            configure()
            self._freeze(pl_module)

        pl_module.configure_model = configure_and_freeze  # type: ignore[method-assign]

    def _freeze(self, pl_module: LightningModule) -> None:
        layers = _batch_norms(pl_module)
        if len(layers) < 2:
            raise ValueError(
                f"`FreezeBatchNorm` must have layers to freeze beside the first, got {type(pl_module).__name__} with "
                f"{len(layers)} BatchNorm layer(s)."
            )
        for layer in layers[1:]:
            # Before the strategy wraps the module, so that DDP does not wait for gradients that never come.
            layer.requires_grad_(False)


def _keep_frozen(layer: nn.Module, _: Any = None) -> None:
    if layer.training:
        layer.eval()


def _batch_norms(module: nn.Module) -> list[nn.Module]:
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]

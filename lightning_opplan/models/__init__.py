"""3D ConvNets as plain modules, one paper a file, and their registry."""

from lightning_opplan.models import dg_p3d
from lightning_opplan.models.registry import get_model, list_models

__all__ = ["dg_p3d", "get_model", "list_models"]

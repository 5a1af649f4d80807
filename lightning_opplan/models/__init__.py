"""3D ConvNets as plain modules, one paper a file, and their registry."""

from lightning_opplan.models import dg_p3d, g_p3d, i3d, lgd_p3d, p3d, r2plus1d, slowfast
from lightning_opplan.models.registry import get_model, list_models

__all__ = ["dg_p3d", "g_p3d", "get_model", "i3d", "lgd_p3d", "list_models", "p3d", "r2plus1d", "slowfast"]

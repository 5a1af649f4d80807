"""Networks by name from the libraries that keep them: ``torchvision/…``, ``timm/…`` and ``transformers/…``."""

from lightning_opplan.models.libraries.sources import SOURCES, known_names, network_from

__all__ = ["SOURCES", "known_names", "network_from"]

"""Small networks of other libraries."""

from importlib.util import find_spec

import pytest

SMALL_BERT = {
    "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32,
    "num_frames": 16,
}  # fmt: skip
"""A video transformer that takes clips of 16 × 32²."""

needs_transformers = pytest.mark.skipif(
    find_spec("transformers") is None,
    reason="transformers is not installed: pip install 'lightning-opplan[transformers]'",
)


def transformers_model(kind, num_classes):
    import transformers

    config = transformers.AutoConfig.for_model(kind, num_labels=num_classes, **SMALL_BERT)
    return transformers.AutoModelForVideoClassification.from_config(config)

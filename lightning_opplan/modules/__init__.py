"""LightningModules around the networks."""

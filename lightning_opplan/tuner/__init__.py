"""The search at work: one fresh Trainer per edge, in the order that the dynamic programme asks for."""

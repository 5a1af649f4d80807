"""Ways to find a training schedule, compared at an equal budget; `benchmarks/peers.py` is the command."""

"""How one edge is trained: its description, its training, and everything in its folder."""

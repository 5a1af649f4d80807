"""3D ConvNets as plain modules, one paper a file, and their registry."""

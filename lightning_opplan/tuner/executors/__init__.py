"""Where the edges of a search run: in this process, in others, or on engines for several machines."""

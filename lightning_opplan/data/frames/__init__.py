"""Where frames come from: memory, files of pixels, and what is known of the videos on disk."""

"""Image data sets: read from many sources, decoded once, and served in batches."""

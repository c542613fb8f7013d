"""Images from a checkpoint."""

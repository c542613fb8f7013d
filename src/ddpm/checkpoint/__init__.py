"""Networks and runs on disk."""

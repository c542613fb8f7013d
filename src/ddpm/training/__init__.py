"""The training loop, with its state, logs, previews and scores."""

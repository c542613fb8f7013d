"""Images from folders, archives, tables and well-known sets, and batches of them."""

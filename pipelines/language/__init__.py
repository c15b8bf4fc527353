"""Language identification and Chinese script."""

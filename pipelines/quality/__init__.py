"""Quality classifiers: train, score."""

"""Layout-independent checkpoints: slices of parameters and optimizer moments."""

"""Loss and bits per byte of a model on held-out documents."""

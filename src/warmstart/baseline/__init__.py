"""Models without training by gradient, as controls of a transfer: one class per file."""

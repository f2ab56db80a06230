"""Single predictions, ours beside those of others."""

"""One scan's prediction by a fitted model."""

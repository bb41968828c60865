"""Selection, survival models and their validation."""

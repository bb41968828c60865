"""What is computed for each case: the stages of a run."""

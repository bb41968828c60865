"""Honest estimates of what a procedure is worth: nested folds, bootstrap, halves, permutations, external cohorts."""

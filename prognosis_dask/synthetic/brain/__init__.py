"""Synthetic glioma patients: MR of the head with skull and scalp, one lesion of known size each, and its truth."""

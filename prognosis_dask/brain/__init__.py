"""MR of the head: prepare the brain from a patient's sequences; find, measure and show the tumour."""

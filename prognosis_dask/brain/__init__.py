"""MR of the head: from the sequences of a patient to a brain, a tumour, its size and its epitome."""

"""What a run keeps: ROIs, the ledger, the feature dataset."""

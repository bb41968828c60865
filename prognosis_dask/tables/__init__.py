"""Tables as hospitals and spreadsheets write them, read cell by cell."""

"""The parts of the report: each with its text, its tables and its figures."""

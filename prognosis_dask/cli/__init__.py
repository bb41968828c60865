"""The commands: what `prognosis` understands, and the lines that it prints."""

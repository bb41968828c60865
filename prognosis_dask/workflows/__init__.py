"""What the commands do, from input to report."""

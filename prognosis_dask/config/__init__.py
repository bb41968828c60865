"""What a user sets: jobs, and the reading and checking of settings."""

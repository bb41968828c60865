"""One scan in a browser: an upload is a case of the house's own stages, and frozen models say what they make of it."""

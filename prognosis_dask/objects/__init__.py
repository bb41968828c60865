"""Objects in buckets: addresses, stores, requests that are bounded and repeated, and what goes wrong with them."""

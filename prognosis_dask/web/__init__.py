"""`prognosis serve`: one scan in a browser: HTTP, uploads, the queue of scans, pages."""

"""Image and mask of a case on one grid, its crop and its frames."""

"""Image files that carry their own geometry (NIfTI, NRRD, MetaImage): grid, voxels, and the names of their labels."""

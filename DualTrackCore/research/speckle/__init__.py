"""Motion from speckle alone: in the plane by matching patches, off the plane by how much they have changed."""

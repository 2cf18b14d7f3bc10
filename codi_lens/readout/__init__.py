"""What a thought says: the lens, the authors' probe, and where known values show up."""

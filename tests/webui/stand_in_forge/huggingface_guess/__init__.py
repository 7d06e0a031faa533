"""A stand-in for the package that tells the family of a checkpoint."""

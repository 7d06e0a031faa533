"""What `embedding_estimate` offers to Python: see `docs/python.md`."""

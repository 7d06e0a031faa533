"""Scripts that belong to processing."""

"""See `backend`."""

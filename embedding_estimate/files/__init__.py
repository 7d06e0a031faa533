"""Embedding files: formats, names, what they record about themselves, and how they are written."""

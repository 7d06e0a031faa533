"""The picture of a result: curves, figures and same-seed images."""

"""Saving results so that nothing is lost: folders, snapshots, and files whose names are typed together."""

"""Where results are saved, and that nothing is lost: the folder, snapshots, files that are typed together."""

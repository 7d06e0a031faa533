"""What a host lends: the interface of a loaded model, vectors with their units, contexts around a prompt."""

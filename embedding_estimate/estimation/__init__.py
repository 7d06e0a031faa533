"""One estimate, from the settings to the result, and the curve over several numbers of vectors."""

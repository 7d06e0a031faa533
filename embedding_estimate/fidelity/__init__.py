"""How faithful an embedding is to its prompt: the protocol, alone and among other words, and texts for the figures."""

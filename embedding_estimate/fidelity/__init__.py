"""How faithful an embedding is to its prompt: the protocol, alone and among other words; names of the figures."""

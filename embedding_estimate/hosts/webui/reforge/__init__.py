"""reForge and Forge Classic."""

class SD20:
    """What Neo has no class for, unlike Forge."""

AlwaysVisible = object()


class Script:
    """What a script of an extension inherits."""

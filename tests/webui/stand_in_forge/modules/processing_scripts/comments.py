import re


def strip_comments(text: str) -> str:
    return re.sub("#.*", "", text)

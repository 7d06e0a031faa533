from typing import Any

dynamic_args: Any = {"emphasis_name": "original"}  # in Neo an object

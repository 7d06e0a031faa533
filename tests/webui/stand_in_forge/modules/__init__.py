"""What Forge's package of this name has otherwise; the rest is AUTOMATIC1111's stand-in."""

from pathlib import Path

__path__ = [*__path__, str(Path(__file__).parents[2] / "stand_in" / "modules")]

"""The words that the demo model was trained on.

A picture of its world shows one object: a shape of one colour on a plain background, in one of three sizes, at one of
five places, with any number of styles. Prompts for the demo model use these words. Every other word means nothing to
it.
"""

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "diamond")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "white", "black")
BACKGROUNDS = ("white", "black", "gray", "blue", "green", "red", "yellow", "pink")
SIZES = ("small", "medium", "large")
POSITIONS = ("center", "left", "right", "top", "bottom")
STYLES = ("blurry", "noisy", "striped", "dotted", "outlined", "framed", "dark", "faded")

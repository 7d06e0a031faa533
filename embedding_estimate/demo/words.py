"""The words the demo model was trained on.

One picture of its world shows one object: a shape of one colour on a plain background, in one of
three sizes, at one of five places, under any number of styles. Prompts for the demo model are
built from these words; every other word of the vocabulary means nothing to it.
"""

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "diamond")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "white", "black")
BACKGROUNDS = ("white", "black", "gray", "blue", "green", "red", "yellow", "pink")
SIZES = ("small", "medium", "large")
POSITIONS = ("center", "left", "right", "top", "bottom")
STYLES = ("blurry", "noisy", "striped", "dotted", "outlined", "framed", "dark", "faded")

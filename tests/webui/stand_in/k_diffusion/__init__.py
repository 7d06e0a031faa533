"""A stand-in for the package that WebUIs sample with, see `modules`."""

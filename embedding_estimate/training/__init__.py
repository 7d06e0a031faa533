"""The run of an optimizer: where it starts, its loop, the weight that the name is typed with."""

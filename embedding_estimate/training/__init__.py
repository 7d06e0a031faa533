"""The run of an optimizer: where it starts, its loop, the weight or the words that are typed."""

"""Checks before the work: settings that a loaded model refuses, and notes on valid input that is rarely meant."""

"""What is checked before the work: what a loaded model refuses, and notes on valid input that is hardly ever meant."""

"""Where data lies: the input, what a row is for a person, and the run."""

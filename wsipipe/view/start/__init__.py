"""The page to start from, for people without a terminal: choose slides and options, start, watch, look, score."""

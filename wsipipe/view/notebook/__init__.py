"""What notebooks show of slides and cells."""

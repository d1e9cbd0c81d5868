"""What is wrong with a picture of tissue: focus, ink, folds, bubbles, dust. One definition for slides and patches."""

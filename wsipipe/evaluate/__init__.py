"""How good a model is: images with labels in, scores out."""

"""Pictures of what a network sees: clusters of dense features, similarity to a point, reconstructions (Fig. 3)."""

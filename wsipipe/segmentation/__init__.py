"""The story of `wsipipe segment`: a slide, or many, in; every cell as a polygon out."""

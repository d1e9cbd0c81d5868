"""What pathologists count: regions and the cells in them, with how sure the numbers are."""

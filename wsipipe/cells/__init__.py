"""From maps to cells: polygons, measurements."""

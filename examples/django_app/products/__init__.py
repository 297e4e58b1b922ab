"""Products with pictures that are searched with pgclip."""

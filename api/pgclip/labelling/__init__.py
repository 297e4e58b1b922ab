"""Labels: sets, people's judgements, teaching and checking."""

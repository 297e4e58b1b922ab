"""From pairs of two models' vectors to a map between their spaces."""

"""The worker side of pgclip: claim, decode, encode, label, store."""

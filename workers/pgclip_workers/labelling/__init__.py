"""From vectors to labels: for what is stored now, and anew for what was stored before."""

"""Submit images and texts; search them in Postgres."""

"""Tables of the application that are kept in step: a client's calls, statements for migrations."""

"""What schema pgclip should be, what the catalogs say it is, and making the one of the other.

`definitions` reads the files, `catalog` the database, `plan` compares them, `laying` changes what
differs, `versions` runs the numbered migrations. `pgclip.migrate` puts them together.
"""

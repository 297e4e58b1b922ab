"""The path of an item: claimed, fetched, encoded, stored, in batches that overlap."""

"""What `pgclip index` looks through: folders, lists, object storage; and what has gone."""

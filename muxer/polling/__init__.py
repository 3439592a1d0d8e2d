"""One poll: the query, the window, the shard, and the targets that need work."""

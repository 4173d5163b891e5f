"""Role mail."""

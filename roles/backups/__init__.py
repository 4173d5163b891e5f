"""Role backups."""

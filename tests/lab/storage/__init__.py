"""Lab tests of object storage, backups and mail."""

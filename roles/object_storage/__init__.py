"""Role object_storage."""

"""The backup set as the control node sees it: manifests and configurations in the locked bucket, escrow, export."""

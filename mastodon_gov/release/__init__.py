"""Release bundles: built once on a clean builder, signed by the ministry, installed many times."""

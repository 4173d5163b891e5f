"""The S3 service: buckets, their settings, and what each key may do. Runs on the control node only."""

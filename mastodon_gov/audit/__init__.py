"""The audit: controls, what was observed of each, and the evidence an auditor takes away."""

"""Which jobs a run reads, and in which order."""

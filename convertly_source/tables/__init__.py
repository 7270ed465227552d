"""One job as rows."""

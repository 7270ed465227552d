"""One page of `GET /api/jobs`: requests, retries, the key."""

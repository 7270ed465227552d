#!/bin/sh
# A Singer tap into target-duckdb; the last state that the target wrote is that of the next run.
bin=$1 tap=$2
[ -s state.json ] || echo '{}' > state.json
echo '{"path": "peer.duckdb", "default_target_schema": "data"}' > target.json
"$bin/python" "$tap" --state state.json 2>tap.log | "$bin/target-duckdb" --config target.json 2>target.log >states
tail -n 1 states > state.json

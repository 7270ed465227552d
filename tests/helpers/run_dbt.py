"""Run commands of dbt one after the other in this process; print whether each has succeeded.

python run_dbt.py '[["build"], ["source", "freshness"]]'
"""

import json
import sys

from dbt.cli.main import dbtRunner

runner = dbtRunner()
print(json.dumps([runner.invoke(command).success for command in json.loads(sys.argv[1])]))

"""Run by the Python of an Airflow: `dag.test()` of a DAG, with parameters in JSON.

Without arguments it prints how the DAGs were imported.
"""

import json
import sys

try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # Airflow 2
    from airflow.models import DagBag

dags = DagBag()
if sys.argv[1:]:
    dag, parameters = sys.argv[1:]
    dags.dags[dag].test(run_conf=json.loads(parameters))
else:
    tasks = [task for dag in dags.dags.values() for task in dag.tasks]
    found = {
        "dags": sorted(dags.dags),
        "errors": dags.import_errors,
        "warnings": dags.captured_warnings,
        "growth": {float(task.retry_exponential_backoff) for task in tasks}.pop(),
        "endless": [task.task_id for task in tasks if not task.execution_timeout],
    }
    print(f"\n{json.dumps(found)}")

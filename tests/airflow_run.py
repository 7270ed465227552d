"""Run by the Python of an Airflow: `dag.test()` of a DAG, once for each JSON of parameters.

Without arguments it says how the DAGs were imported.
"""

import json
import sys

try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # Airflow 2
    from airflow.models import DagBag

dags = DagBag()
if sys.argv[1:]:
    name, *runs = sys.argv[1:]
    for parameters in runs:
        dags.dags[name].test(run_conf=json.loads(parameters))
else:
    tasks = [task for dag in dags.dags.values() for task in dag.tasks]
    said = {
        "dags": sorted(dags.dags),
        "errors": dags.import_errors,
        "warnings": getattr(dags, "captured_warnings", {}),
        "retries": {task.task_id: float(task.retry_exponential_backoff) for task in tasks},
    }
    print(json.dumps(said))

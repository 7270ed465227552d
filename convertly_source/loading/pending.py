"""What an earlier load has left in the working folder of a pipeline."""

from contextlib import suppress

import dlt

from convertly_source.errors import SettingsError
from convertly_source.loading.target import describe

TARGET = "target"  # of the pending load, in the state that stays in the working folder


def finish_pending(pipeline: dlt.Pipeline) -> None:
    """Load what an earlier run has read, unless its load was cut off halfway.

    That one is read again: dlt might write a second time what it had not yet noted as written.
    Raise `SettingsError` if it was read for another target.
    """
    if not pipeline.has_pending_data:
        return
    target = "another place"  # by a pipeline of the user's own, which has the same name
    with suppress(KeyError):
        target = pipeline.get_local_state_val(TARGET)
    if target != describe(pipeline):
        raise SettingsError(
            f"A load into {target} was not finished.",
            "Run again with the settings of that load first.",
            setting="state",
        )
    for load_id in pipeline.list_normalized_load_packages():
        jobs = pipeline.get_load_package_info(load_id).jobs
        if any(jobs[state] for state in jobs if state != "new_jobs"):
            return
    pipeline.run()


def note_target(pipeline: dlt.Pipeline) -> None:
    """Note in the working folder where what is read from now on is to be loaded."""
    pipeline.set_local_state_val(TARGET, describe(pipeline))

"""The names of the tags of a run and of the tags and properties of a version."""

from __future__ import annotations

# Keys of the tags of a run and of the properties of a version. The first ones are read by existing
# consumers and keep their names.
RUN_ID = "osmo.run_id"
OUTPUT_DIR = "osmo.output_dir"
REPLAY = "osmo.replay"
REPLAY_SOURCE = "osmo.replay_source"
FRAMEWORK = "framework"
SOURCE = "source"
CHECKPOINT = "checkpoint"
STEP = "step"
# What the policy does: Isaac Lab's task, LeRobot's environment or data set, or what --task-name says.
TASK = "task"
# final, best or periodic: see aml_mirror.core.run.Role.
ROLE = "role"
# The least success rate of an evaluation that counts as passed, from 0 to 1.
SUCCESS_THRESHOLD = "success_threshold"
# Where the version's files are, as OSMO's `inputs: - url:` takes it.
FILES_URI = "files_uri"
# Of an adapter. A person may name another with --tag.
BASE_MODEL = "base_model"
MLFLOW_RUN_ID = "mlflow_run_id"
MANIFEST_SHA256 = "manifest_sha256"
INTEGRITY = "integrity"
SAFETY = "safety"
SAFETY_SCANNER = "safety.scanner"
# What a newer scanner said of a version, beside the property that cannot change.
SAFETY_NOW = "mirror.safety"
SAFETY_NOW_SCANNER = "mirror.safety_scanner"
IDENTITY = "identity"
QUICK_KEY = "quick_key"
MODEL_NAME = "model_name"
STATE = "mirror.state"
LEASE = "mirror.lease"
POINTS = "mirror.points"
METRIC_NAMES = "mirror.metric_names"
# Of a version of Azure ML: the stage that it was promoted to.
STAGE = "mirror.stage"
# Of a version: how far its logs were mirrored; see aml_mirror.pipeline.log_state.
LOGS = "mirror.logs"
# Of a run, in UTC as ISO 8601: when a mirror made it, and when one gave up on it last.
BEGAN = "mirror.began"
STOPPED = "mirror.stopped"
# What MLflow shows as the description of a run, in Markdown.
NOTE = "mlflow.note.content"
# Likewise: when the training began and ended, as an interval. See aml_mirror.registries.run_times.
TRAINED = "mirror.trained"

# Before the name of a label that the run has on OSMO; a tag of run and version.
LABEL = "label."

# The experiment that has what is kept for the next call, on MLflow servers, unless --experiment names one.
STATE_EXPERIMENT = "aml-mirror"

COMPLETE = "complete"
INCOMPLETE = "incomplete"

# Tags that begin so are the mirror's own.
OWN_PREFIX = "mirror."
RESERVED = frozenset(
    {
        RUN_ID, OUTPUT_DIR, REPLAY, REPLAY_SOURCE, FRAMEWORK, SOURCE, CHECKPOINT, STEP, MLFLOW_RUN_ID,
        MANIFEST_SHA256, INTEGRITY, SAFETY, SAFETY_SCANNER, IDENTITY, QUICK_KEY, MODEL_NAME, STATE,
        LEASE, POINTS, METRIC_NAMES, TASK, ROLE, SUCCESS_THRESHOLD, FILES_URI, TRAINED,
        NOTE,
    }
)  # fmt: skip

# Tags of a run that nobody reads from its version.
OF_THE_RUN_ALONE = frozenset({METRIC_NAMES, BEGAN, STOPPED, TRAINED, NOTE})

# Consumers read these as tags, whatever else has them: physical-ai-toolchain's evaluation asks for
# .tags.framework and .tags.task.
CONSUMER_TAGS = (FRAMEWORK, TASK, STEP, ROLE)
# What a person may say with --tag too, as with an option of its own.
ALSO_BY_TAG = frozenset({FRAMEWORK, TASK, NOTE})

"""The names of the tags of a run and of the tags and properties of a version."""

from __future__ import annotations

# Keys of the tags of a run and of the properties of a version. Existing consumers read the first ones, so
# these keep their names.
RUN_ID = "osmo.run_id"
OUTPUT_DIR = "osmo.output_dir"
REPLAY = "osmo.replay"
REPLAY_SOURCE = "osmo.replay_source"
FRAMEWORK = "framework"
SOURCE = "source"
CHECKPOINT = "checkpoint"
STEP = "step"
# The task of the policy: Isaac Lab's task, LeRobot's environment or data set, or the value of --task-name.
TASK = "task"
# final, best or periodic: see aml_mirror.core.run.Role.
ROLE = "role"
# The lowest success rate, from 0 to 1, with which an evaluation counts as passed.
SUCCESS_THRESHOLD = "success_threshold"
# The location of the version's files, in the form of OSMO's `inputs: - url:`.
FILES_URI = "files_uri"
# The base model of an adapter. Users may set another one with --tag.
BASE_MODEL = "base_model"
MLFLOW_RUN_ID = "mlflow_run_id"
MANIFEST_SHA256 = "manifest_sha256"
INTEGRITY = "integrity"
SAFETY = "safety"
SAFETY_SCANNER = "safety.scanner"
# What a newer scanner found in a version, beside the property that cannot change.
SAFETY_NOW = "mirror.safety"
SAFETY_NOW_SCANNER = "mirror.safety_scanner"
IDENTITY = "identity"
QUICK_KEY = "quick_key"
MODEL_NAME = "model_name"
STATE = "mirror.state"
LEASE = "mirror.lease"
POINTS = "mirror.points"
METRIC_NAMES = "mirror.metric_names"
# For a version of Azure ML: the stage that it was promoted to.
STAGE = "mirror.stage"
# For a version: how far its logs were mirrored; see aml_mirror.pipeline.log_state.
LOGS = "mirror.logs"
# For a run, in UTC as ISO 8601: when a mirror created it, and when a mirror last gave up on it.
BEGAN = "mirror.began"
STOPPED = "mirror.stopped"
# MLflow shows this as the description of a run, in Markdown.
NOTE = "mlflow.note.content"
# For a run, in the same format: the start and end of the training, as an interval. See
# aml_mirror.registries.run_times.
TRAINED = "mirror.trained"

# The prefix for a label that the run has on OSMO; a tag of run and version.
LABEL = "label."

# On MLflow servers, the experiment with the state for the next call, unless --experiment names one.
STATE_EXPERIMENT = "aml-mirror"

COMPLETE = "complete"
INCOMPLETE = "incomplete"

# Tags with these prefixes belong to the mirror.
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

# Consumers read these as tags, even if they are also elsewhere: physical-ai-toolchain's evaluation reads
# .tags.framework and .tags.task.
CONSUMER_TAGS = (FRAMEWORK, TASK, STEP, ROLE)
# A person may also set these with --tag, in addition to their own options.
ALSO_BY_TAG = frozenset({FRAMEWORK, TASK, NOTE})

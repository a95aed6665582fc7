"""Read all scalars of an event file with one of several readers. It runs in that reader's environment."""

from __future__ import annotations

import os

from measure import Timer, arguments, report

given = arguments()
path, reader = given["path"], given["reader"]
tags: set[str] = set()
points = 0

if reader == "bare":
    # Only the interpreter and this file's own imports: the baseline for memory.
    report(Timer(), {})
    raise SystemExit

if reader == "ours":
    from aml_mirror.metrics.readers.event_file import EventFile

    with Timer() as timer, open(path, "rb") as stream:
        file = EventFile(stream, path)
        for tag, _, _, _ in file:
            tags.add(tag)
        points = file.points
    if file.skipped_records or file.ended:
        raise SystemExit("the file was not read completely")
elif reader == "tbparse":
    from tbparse import SummaryReader

    with Timer() as timer:
        frame = SummaryReader(path).scalars
        points = len(frame)
        tags.update(frame["tag"].unique())
elif reader == "accumulator":
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    with Timer() as timer:
        accumulator = EventAccumulator(path, size_guidance={SCALARS: 0})
        accumulator.Reload()
        for tag in accumulator.Tags()[SCALARS]:
            tags.add(tag)
            points += len(accumulator.Scalars(tag))
elif reader == "loader":
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    with Timer() as timer:
        for record in RawEventFileLoader(path).Load():
            for value in Event.FromString(record).summary.value:
                tags.add(value.tag)
                points += 1
else:
    raise SystemExit(f"no reader {reader}")

report(timer, {"points": points, "tags": len(tags)}, bytes=os.path.getsize(path))

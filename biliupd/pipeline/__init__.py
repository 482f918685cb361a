"""From rows to rows: claim a video or a submission, run its next step, write down the outcome."""

from biliupd.pipeline.workers import Pipeline

__all__ = ["Pipeline"]

"""Trackers: where a training's figures go beside log.jsonl (docs/tracking.md)."""

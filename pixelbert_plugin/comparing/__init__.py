"""`pixelbert-run --compare`: what tells runs apart in their options, metrics, predictions and curves (docs/tracking.md)."""

"""Sweeps: rows of a table × stages × seeds, each cell a run of pixelbert-run, resumable cell by cell."""

"""All reading and writing of weights: checkpoints, exported files, and the files of others."""

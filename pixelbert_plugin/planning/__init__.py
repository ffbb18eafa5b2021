"""What a run will need before anything is bought or downloaded: memory, operations, time and cost. Nothing is allocated."""

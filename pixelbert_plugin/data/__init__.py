"""From official files to batches on the device: builders, order, reader, collate, loader."""

"""What lies below everything: the terminal, signals, and processes that end with their parent."""

"""What people and programs see of a run: log lines, a live progress display, pictures."""

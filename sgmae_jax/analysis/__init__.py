"""What a run looked like: arithmetic, pictures and the report."""

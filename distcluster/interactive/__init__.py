"""What a person in Python or a notebook calls: ``cluster``, and what came of it, as tables and plots."""

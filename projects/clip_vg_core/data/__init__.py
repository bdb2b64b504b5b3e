"""Labels: the table of them, readers and writers of files, checks."""

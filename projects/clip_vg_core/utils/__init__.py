"""Files: written whole, read without being run, named, locked, resumed."""

"""The self-paced search: its driver, trials, record."""

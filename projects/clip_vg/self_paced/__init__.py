"""The self-paced search: what it trains and compares, and how that is executed."""

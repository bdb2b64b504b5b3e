"""Serving on CPUs: export, quantisation, and answers from an exported folder."""

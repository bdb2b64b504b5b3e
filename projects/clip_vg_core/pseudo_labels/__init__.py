"""From detections, captions and relations to labels: pure functions."""

"""From a plan to records: fits, scores, measures, writes."""

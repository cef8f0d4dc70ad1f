"""Building blocks that methods share; none knows a method."""

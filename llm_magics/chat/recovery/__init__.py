"""Near misses: wrappers that models write instead of their template's own, and the decision whether one is a call."""

"""`make bench`: how fast the service is, measured against hand-written SQL on the same database in the same run.

Every figure is a ratio of two sides that take turns. What each compares is in `README.md`.
"""

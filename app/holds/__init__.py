"""Holds: points reserved for one spend at a till or a partner, until it is captured, released, or its time is up.

Owns what was said when a hold was asked for; the hold itself is the ledger's. Orders of rewards hold points too, with
no end and no such request: they are neither seen nor ended from here.
"""

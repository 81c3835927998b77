"""Transfers: points given from member to member, and households that put theirs together.

Owns transfers, and changes pools and who is in them. A pool has no account: each member's points stay theirs until
somebody in it draws on the others for a spend, which is as many transfers in one transaction. The total never changes,
and lots keep expiry and cohort.
"""

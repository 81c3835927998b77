"""The wallet: what a member sees of their own points, on a phone.

Owns no table. A partner's back end gets its member a token (`POST /v1/oauth/token`); with it the member reads
`/v1/me/...` and nothing else, and nobody else does. A route there takes `Annotated[MemberCaller, me()]` and
has no parameter that names a member.
"""

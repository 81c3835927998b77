"""Tokens of members: who gets one, what it looks like, and everything that is none."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from app import members
from app.clients import MemberCaller, sign_token, signing_key
from app.clients.rules import read_token
from app.ids import new_id
from app.members import Identifier
from tests.shop import PEPPER, TERMS, Shop, make_key, make_program, purchase
from tests.test_access import check_problem, logged

NOW = datetime(2026, 11, 22, 12, 0, 0, 250_000, tzinfo=UTC)
KEY = signing_key(PEPPER.encode())
ADA = MemberCaller(UUID("0199d3a6-b1f0-7c1e-8a52-3f0d5b7c9e21"), UUID("0199d3a6-b1f0-7c1e-8a52-3f0d5b7c9e22"))
CLIENT = UUID("0199d3a6-b1f0-7c1e-8a52-3f0d5b7c9e23")


def ask(shop: Shop, member: dict[str, Any], key: str = "partner") -> Any:
    return shop.client(key).post("/v1/oauth/token", json={"member": member})


def token_of(shop: Shop, **member: Any) -> str:
    """A token of a member by one identifier (card 900 unless told otherwise), as a partner gets it."""
    response = ask(shop, member or {"card": "900"})
    assert response.status_code == 200, response.text
    text: str = response.json()["access_token"]
    return text


def balance(shop: Shop, token: str) -> Any:
    return shop.client(token).get("/v1/me/balance")


# --- getting one ----------------------------------------------------------------------------------------------------


def test_a_partner_gets_its_member_a_token(shop: Shop) -> None:
    """The form of RFC 6749, 5.1; the same member by any identifier. With it, the member reads the balance."""
    member = shop.post(purchase()).json()["member"]["id"]
    response = ask(shop, {"card": "900"})
    assert response.headers["Cache-Control"] == "no-store"
    text = response.json().pop("access_token")
    assert response.json() == {"access_token": text, "token_type": "Bearer", "expires_in": 900}
    for reference in ({"id": member}, {"card": " 9-00"}):
        assert balance(shop, token_of(shop, **reference)).json()["member_id"] == member
    assert balance(shop, text).json()["balance"]["available"] == 10


def test_what_is_in_a_token(shop: Shop) -> None:
    """RFC 9068. It says who, of which programme, asked for by whom, and until when; nothing personal."""
    member = shop.post(purchase()).json()["member"]["id"]
    text = token_of(shop)
    (known,) = TestClient(shop.app).get("/.well-known/jwks.json").json()["keys"]
    assert jwt.get_unverified_header(text) == {"alg": "EdDSA", "typ": "at+jwt", "kid": known["kid"]}
    timeless: Any = {"verify_exp": False, "verify_iat": False}  # the test's clock is not the library's
    claims = jwt.decode(text, jwt.PyJWK(known), ["EdDSA"], audience="loyalty/me", options=timeless)
    start = int(shop.clock().timestamp())
    assert UUID(claims.pop("client_id"))
    assert UUID(claims.pop("jti"))
    assert claims == {
        "iss": "loyalty",
        "aud": "loyalty/me",
        "sub": member,
        "program": str(shop.program_id),
        "iat": start,
        "exp": start + 900,
    }
    assert token_of(shop) != text, "each has its own jti"


def test_the_public_key_is_all_that_is_published(shop: Shop) -> None:
    response = TestClient(shop.app).get("/.well-known/jwks.json")
    (known,) = response.json()["keys"]
    assert known.keys() == {"kty", "crv", "x", "kid", "use", "alg"}
    assert (known["kty"], known["crv"], known["use"], known["alg"]) == ("OKP", "Ed25519", "sig", "EdDSA")
    canonical = json.dumps({name: known[name] for name in ("crv", "kty", "x")}, separators=(",", ":"))
    assert known["kid"] == encode(hashlib.sha256(canonical.encode()).digest()), "RFC 7638"
    assert response.headers["Cache-Control"] == "public, max-age=300"


def test_who_gets_none(shop: Shop) -> None:
    """Unknown members, closed ones, another programme's; and a till may not ask at all."""
    member = shop.post(purchase()).json()["member"]["id"]
    check_problem(ask(shop, {"card": "901"}), 422, "unknown_member")
    check_problem(ask(shop, {"id": str(new_id())}), 422, "unknown_member")
    check_problem(ask(shop, {"phone": "12"}), 422, "identifier_invalid")
    check_problem(ask(shop, {"card": "900", "id": member}), 422, "invalid_request")
    check_problem(ask(shop, {"card": "900"}, "terminal"), 403, "forbidden")
    check_problem(ask(shop, {"card": "900"}, token_of(shop)), 401, "unauthenticated")
    stranger = shop.database.write(
        lambda session: make_key(session, "partner", shop.clock(), make_program(session, TERMS, shop.clock(), "other"))
    )
    for reference in ({"card": "900"}, {"id": member}):
        check_problem(ask(shop, reference, stranger), 422, "unknown_member")
    change(shop, member, "closed")
    check_problem(ask(shop, {"card": "900"}), 409, "member_closed")


def change(shop: Shop, member: str, status: str) -> None:
    path = f"/v1/members/{member}"
    tag = shop.http.get(path).headers["ETag"]
    assert shop.http.patch(path, json={"status": status}, headers={"If-Match": tag}).status_code == 200


# --- using one ------------------------------------------------------------------------------------------------------


def test_a_token_is_good_for_fifteen_minutes(shop: Shop) -> None:
    """By the service's clock, to the second, without leeway."""
    shop.post(purchase())
    token = token_of(shop)
    shop.clock.forward(minutes=15, microseconds=-1)
    assert balance(shop, token).status_code == 200
    shop.clock.forward(microseconds=1)
    check_problem(balance(shop, token), 401, "unauthenticated")


def test_a_closed_member_s_token_is_refused_at_once(shop: Shop) -> None:
    """A suspended member still reads; a closed one does not, though the token would last."""
    member = shop.post(purchase()).json()["member"]["id"]
    token = token_of(shop)
    change(shop, member, "suspended")
    assert balance(shop, token).status_code == 200
    change(shop, member, "closed")
    check_problem(balance(shop, token), 401, "unauthenticated")


def test_well_signed_tokens_of_nobody_here(shop: Shop) -> None:
    """A member there is none of, and another programme's member under this programme's name."""

    def enrol_elsewhere(session: Session) -> UUID:
        program_id = make_program(session, TERMS, shop.clock(), "other")
        return members.enrol(session, program_id, [Identifier("card", "900")], shop.clock())

    shop.post(purchase())
    for member_id in (new_id(), shop.database.write(enrol_elsewhere)):
        token = sign_token(KEY, MemberCaller(member_id, shop.program_id), CLIENT, shop.clock())
        check_problem(balance(shop, token), 401, "unauthenticated")


def test_with_another_pepper_no_token_is_good(shop: Shop) -> None:
    shop.post(purchase())
    token = token_of(shop)
    shop.app.state.pepper = b"another pepper of more than 32 characters"
    check_problem(balance(shop, token), 401, "unauthenticated")


# --- what is none ---------------------------------------------------------------------------------------------------


def encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def decode(part: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(part + "=="))


@dataclass(frozen=True, slots=True)
class Forge:
    """A good token, taken apart."""

    header: dict[str, Any]
    claims: dict[str, Any]
    signature: str

    def signed(self, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Other content under our own signature. A claim of None is left out."""
        changed = {name: value for name, value in (self.claims | claims).items() if value is not None}
        unsigned = f"{encode_json(self.header | (header or {}))}.{encode_json(changed)}"
        return f"{unsigned}.{encode(KEY.private.sign(unsigned.encode()))}"

    def hashed(self, secret: bytes) -> str:
        """HS256 with something public for the secret."""
        unsigned = f"{encode_json(self.header | {'alg': 'HS256'})}.{encode_json(self.claims)}"
        return f"{unsigned}.{encode(hmac.new(secret, unsigned.encode(), hashlib.sha256).digest())}"

    def parts(self) -> tuple[str, str, str]:
        return encode_json(self.header), encode_json(self.claims), self.signature


def encode_json(value: Any) -> str:
    return encode(json.dumps(value, separators=(",", ":")).encode())


def forge() -> Forge:
    header, claims, signature = sign_token(KEY, ADA, CLIENT, NOW).split(".")
    return Forge(decode(header), decode(claims), signature)


START = int(NOW.timestamp())
PEM = KEY.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
RAW = KEY.public.public_bytes(Encoding.Raw, PublicFormat.Raw)
JWK = json.dumps(KEY.public_jwk()).encode()
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))


def _by_another_key(forged: Forge) -> str:
    unsigned = ".".join(forged.parts()[:2])
    return f"{unsigned}.{encode(OTHER.sign(unsigned.encode()))}"


def _bit_flipped(forged: Forge) -> str:
    header, claims, signature = forged.parts()
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    raw[5] ^= 1
    return f"{header}.{claims}.{encode(bytes(raw))}"


def _other_claims(forged: Forge) -> str:
    return f"{forged.parts()[0]}.{encode_json(forged.claims | {'sub': str(new_id())})}.{forged.signature}"


def _unsigned(forged: Forge, alg: str) -> str:
    return f"{encode_json(forged.header | {'alg': alg})}.{forged.parts()[1]}."


WRONG: dict[str, Callable[[Forge], str]] = {
    "expired": lambda f: f.signed(iat=START - 900, exp=START),
    "not yet valid": lambda f: f.signed(iat=START + 1, exp=START + 901),
    "without an end": lambda f: f.signed(exp=None),
    "without a start": lambda f: f.signed(iat=None),
    "an end in words": lambda f: f.signed(exp="tomorrow"),
    "another audience": lambda f: f.signed(aud="loyalty"),
    "several audiences": lambda f: f.signed(aud=["loyalty/me", "elsewhere"]),
    "no audience": lambda f: f.signed(aud=None),
    "another issuer": lambda f: f.signed(iss="elsewhere"),
    "no issuer": lambda f: f.signed(iss=None),
    "no member": lambda f: f.signed(sub=None),
    "a member that is no id": lambda f: f.signed(sub="card 900"),
    "a member that is a number": lambda f: f.signed(sub=900),
    "no programme": lambda f: f.signed(program=None),
    "a programme that is a list": lambda f: f.signed(program=[]),
    "no number of its own": lambda f: f.signed(jti=None),
    "another type": lambda f: f.signed({"typ": "JWT"}),
    "another key's id": lambda f: f.signed({"kid": "1"}),
    "a key's id that is none": lambda f: f.signed({"kid": None}),
    "an extension nobody knows": lambda f: f.signed({"crit": ["x"], "x": 1}),
    "alg none": lambda f: _unsigned(f, "none"),
    "alg None": lambda f: _unsigned(f, "None"),
    "alg none with our signature": lambda f: f.signed({"alg": "none"}),
    "HS256 with the public key, PEM": lambda f: f.hashed(PEM),
    "HS256 with the public key, raw": lambda f: f.hashed(RAW),
    "HS256 with the public key, JWK": lambda f: f.hashed(JWK),
    "HS256 with nothing": lambda f: f.hashed(b""),
    "ES256 on an Ed25519 signature": lambda f: f.signed({"alg": "ES256"}),
    "signed by another key": _by_another_key,
    "a key of its own": lambda f: f.signed({"jwk": KEY.public_jwk(), "kid": "mine"}),
    "a bit of the signature": _bit_flipped,
    "other claims under the signature": _other_claims,
    "no signature": lambda f: ".".join([*f.parts()[:2], ""]),
    "two parts": lambda f: ".".join(f.parts()[:2]),
    "four parts": lambda f: ".".join([*f.parts(), "x"]),
    "claims that are a list": lambda f: f"{f.parts()[0]}.{encode_json([])}.{f.signature}",
    "a header that is a list": lambda f: f"{encode_json([])}.{f.parts()[1]}.{f.signature}",
    "a deep header": lambda f: f"{encode(b'[' * 600)}.{f.parts()[1]}.{f.signature}",
    "not base64": lambda f: "?.?.?",
    "nothing": lambda f: "",
    "dots": lambda f: "..",
    "not ASCII": lambda f: "é.é.é",
    "a key": lambda f: "loy_staff_0123456789abcdef_" + "0" * 64 + "_00000000",
    "huge": lambda f: f.signed(extra="x" * 2000),
    "huge and garbage": lambda f: "a." * 30_000,
}
"""Tokens that are none, each one thing away from a good one."""


@pytest.mark.parametrize("make", WRONG.values(), ids=WRONG)
def test_what_is_no_token(make: Callable[[Forge], str]) -> None:
    assert read_token(KEY, forge().signed(), NOW) == ADA, "so that it is the one thing"
    assert read_token(KEY, make(forge()), NOW) is None


def test_on_the_wire_they_all_get_the_same_answer(shop: Shop) -> None:
    """401, which neither says why nor repeats the token; and the log holds none, a good one neither."""
    shop.post(purchase())
    good = token_of(shop)
    tokens = [make(forge()) for name, make in WRONG.items() if name not in {"nothing", "not ASCII"}]
    answers = set()
    with logged() as log:
        assert balance(shop, good).status_code == 200
        assert token_of(shop)
        for token in tokens:
            response = balance(shop, token)
            check_problem(response, 401, "unauthenticated")
            assert response.headers["WWW-Authenticate"] == "Bearer"
            answers.add(json.dumps(response.json() | {"request_id": None}))
        response = TestClient(shop.app).get("/v1/me/balance", headers={b"Authorization": b"Bearer \xe9.\xe9.\xe9"})
        check_problem(response, 401, "unauthenticated")
    assert len(answers) == 1
    for token in (good, *tokens):
        for part in token.split("."):
            assert len(part) < 20 or part not in log()


def test_a_token_lasts_from_its_second_on() -> None:
    """Its times are whole seconds, as RFC 7519 has them in practice: good in the second it was made in."""
    token = sign_token(KEY, ADA, CLIENT, NOW)
    cases = [
        (NOW - timedelta(milliseconds=251), None),
        (NOW - timedelta(milliseconds=250), ADA),
        (NOW, ADA),
        (NOW + timedelta(seconds=899, milliseconds=749), ADA),
        (NOW + timedelta(seconds=899, milliseconds=750), None),
    ]
    assert [read_token(KEY, token, now) for now, _ in cases] == [member for _, member in cases]


def test_the_key_is_derived_from_the_pepper() -> None:
    """All processes have the same; another pepper is another key, and the public half tells nothing of it."""
    assert signing_key(PEPPER.encode()).id == KEY.id
    assert signing_key(PEPPER.encode() + b"!").id != KEY.id
    assert PEPPER.encode() not in RAW + PEM

"""Looks at answers and leases of the server with other people's libraries: http-message-signatures and PyJWT.

    verify.py answers FILE    exchanges, one JSON document a line, after a first line with the keys
    verify.py leases FILE     leases, the same way

Prints what it found as one JSON document; what is not as it must be ends it with a traceback.
"""
import base64
import datetime
import hashlib
import json
import os
import sys

import http_sf
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from http_message_signatures import HTTPMessageVerifier, HTTPSignatureKeyResolver, algorithms

PROOF = ("content-digest", "signature-input", "signature")


class Keys(HTTPSignatureKeyResolver):
    def __init__(self, keys):
        self.keys = {name: Ed25519PublicKey.from_public_bytes(base64.b64decode(key)) for name, key in keys.items()}

    def resolve_public_key(self, key_id):
        return self.keys.get(key_id)


class Request:
    def __init__(self, told):
        self.method, self.url = told["method"], "https://localhost" + told["path"]
        self.body = told["sent"].encode()
        # What a client knows of its own body, whether it said so or not.
        self.headers = {"Content-Digest": digest(self.body)} if self.body else {}


class Answer:
    def __init__(self, told):
        self.request, self.status_code = Request(told), told["status"]
        self.headers, self.body = dict(told["headers"]), told["answer"].encode()


def digest(body):
    return "sha-256=:" + base64.b64encode(hashlib.sha256(body).digest()).decode() + ":"


def required(told):
    covered = ['"@status"', '"content-digest"', '"@method";req', '"@path";req']
    return covered + ['"content-digest";req'] if told["sent"] and told["status"] != 413 else covered


class Verifier:
    def __init__(self, keys):
        self.library = HTTPMessageVerifier(signature_algorithm=algorithms.ED25519, key_resolver=Keys(keys))

    def verify(self, told):
        """The id of the key; an exception for whatever is not the server's answer to just this."""
        answer = Answer(told)
        [result] = self.library.verify(
            answer, max_age=datetime.timedelta(minutes=10), require_components=required(told), body=answer.body
        )
        assert result.nonce == told["nonce"], "an answer to somebody else"
        return result.parameters["keyid"]

    def refuses(self, told):
        try:
            self.verify(told)
        except Exception:
            return True
        return False


def flips(text):
    """Texts that differ in one bit, as far as they are texts: two or three of each character, or all in a long run."""
    step = 1 if "LICENSE_TEST_ROUNDS" in os.environ else 3
    for number in range(0, 7 * len(text), step):
        place, bit = divmod(number, 7)
        yield text[:place] + chr(ord(text[place]) ^ 1 << bit) + text[place + 1 :]


def forgeries(told):
    for bit in range(10):
        yield "status", dict(told, status=told["status"] ^ 1 << bit)
    for part in ("method", "path", "sent", "answer", "nonce"):
        for text in flips(told[part]):
            yield part, dict(told, **{part: text})
    for name in PROOF:
        for text in flips(told["headers"][name]):
            if name == "signature" and same_bytes(text, told["headers"][name]):
                continue  # a bit behind the last byte, which base64 has to spare: nothing has changed
            yield name, dict(told, headers=dict(told["headers"], **{name: text}))


def same_bytes(one, other):
    try:
        return http_sf.ser(http_sf.parse(one.encode(), tltype="dictionary")) == other
    except Exception:
        return False


def answers(keys, exchanges):
    verifier = Verifier(keys)
    signers, statuses, forged = {}, {}, {}
    for told in exchanges:
        signer = verifier.verify(told)
        signers[signer] = signers.get(signer, 0) + 1
        statuses[str(told["status"])] = statuses.get(str(told["status"]), 0) + 1
    for told, other in zip(exchanges, exchanges[1:]):
        assert verifier.refuses(dict(told, nonce=other["nonce"])), "to a nonce that is not its own"
    for told, other in list(zip(exchanges, exchanges[1:]))[::10]:
        taken = told["headers"]["signature-input"].replace(told["nonce"], other["nonce"])
        other_input = dict(told["headers"], **{"signature-input": taken})
        assert verifier.refuses(dict(told, nonce=other["nonce"], headers=other_input)), "nonce replaced"
        proof = {name: other["headers"][name] for name in PROOF}
        assert verifier.refuses(dict(told, headers=dict(told["headers"], **proof))), "another answer's proof"
    # Every bit of a yes and of a no: of short ones, there are many bits.
    with_body = sorted((told for told in exchanges if told["sent"]), key=lambda told: len(json.dumps(told)))
    yes, no = [[told for told in with_body if (told["status"] < 400) == good][:1] for good in (True, False)]
    for told in yes + no:
        for part, forgery in forgeries(told):
            assert verifier.refuses(forgery), (part, forgery)
            forged[part] = forged.get(part, 0) + 1
    return {"signers": signers, "statuses": statuses, "forged": forged}


def leases(keys, tokens):
    claims = []
    for told in tokens:
        header = jwt.get_unverified_header(told)
        assert (header["alg"], header["typ"]) == ("EdDSA", "lease+jwt"), header
        key = load_pem_public_key(keys[header["kid"]].encode())
        told_claims = jwt.decode(told, key, algorithms=["EdDSA"], options={"require": ["iat", "exp"]})
        claims.append(dict(told_claims, kid=header["kid"]))
        signed = told.rindex(".")
        for place in range(0, len(told) - 2, 7):  # the last characters may have bits to spare
            swapped = "A" if told[place] != "A" else "B"
            try:
                jwt.decode(told[:place] + swapped + told[place + 1 :], key, algorithms=["EdDSA"])
            except jwt.InvalidTokenError:
                continue
            raise AssertionError(f"believed with another character at {place} of {signed}")
    return claims


with open(sys.argv[2]) as file:
    first, *rest = [json.loads(line) for line in file]
print(json.dumps({"answers": answers, "leases": leases}[sys.argv[1]](first, rest)))

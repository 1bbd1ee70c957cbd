"""Verifies signed responses and leases of the server with independent libraries: http-message-signatures and PyJWT.

    verify.py answers FILE    exchanges, one JSON document per line, after a first line with the keys
    verify.py leases FILE     leases, the same way

Prints a summary as one JSON document; any failure ends it with a traceback.
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
    def __init__(self, exchange):
        query = "?" + exchange["query"] if exchange["query"] else ""
        self.method, self.url = exchange["method"], "https://localhost" + exchange["path"] + query
        self.body = exchange["sent"].encode()
        # The digest of the request's body, whether the client sent the header or not.
        self.headers = {"Content-Digest": digest(self.body)} if self.body else {}


class Answer:
    def __init__(self, exchange):
        self.request, self.status_code = Request(exchange), exchange["status"]
        self.headers, self.body = dict(exchange["headers"]), exchange["answer"].encode()


def digest(body):
    return "sha-256=:" + base64.b64encode(hashlib.sha256(body).digest()).decode() + ":"


def required(exchange):
    covered = ['"@status"', '"content-digest"', '"@method";req', '"@path";req']
    covered += ['"@query";req'] if exchange["query"] else []
    return covered + ['"content-digest";req'] if exchange["sent"] and exchange["status"] != 413 else covered


class Verifier:
    def __init__(self, keys):
        self.library = HTTPMessageVerifier(signature_algorithm=algorithms.ED25519, key_resolver=Keys(keys))

    def verify(self, exchange):
        """The id of the key; raises unless this is the server's response to exactly this request."""
        answer = Answer(exchange)
        [result] = self.library.verify(
            answer, max_age=datetime.timedelta(minutes=10), require_components=required(exchange), body=answer.body
        )
        assert result.nonce == exchange["nonce"], "a response to another request"
        return result.parameters["keyid"]

    def refuses(self, exchange):
        try:
            self.verify(exchange)
        except Exception:
            return True
        return False


def flips(text):
    """Copies of the text with one bit flipped: two or three per character, or all with LICENSE_TEST_ROUNDS."""
    step = 1 if "LICENSE_TEST_ROUNDS" in os.environ else 3
    for number in range(0, 7 * len(text), step):
        place, bit = divmod(number, 7)
        yield text[:place] + chr(ord(text[place]) ^ 1 << bit) + text[place + 1 :]


def forgeries(exchange):
    for bit in range(10):
        yield "status", dict(exchange, status=exchange["status"] ^ 1 << bit)
    for part in ("method", "path", "query", "sent", "answer", "nonce"):
        for text in flips(exchange[part]):
            yield part, dict(exchange, **{part: text})
    for name in PROOF:
        for text in flips(exchange["headers"][name]):
            if name == "signature" and same_bytes(text, exchange["headers"][name]):
                continue  # an unused bit at the end of the base64 text: the signature is the same
            yield name, dict(exchange, headers=dict(exchange["headers"], **{name: text}))


def same_bytes(one, other):
    try:
        return http_sf.ser(http_sf.parse(one.encode(), tltype="dictionary")) == other
    except Exception:
        return False


def answers(keys, exchanges):
    verifier = Verifier(keys)
    signers, statuses, forged = {}, {}, {}
    for exchange in exchanges:
        signer = verifier.verify(exchange)
        signers[signer] = signers.get(signer, 0) + 1
        statuses[str(exchange["status"])] = statuses.get(str(exchange["status"]), 0) + 1
    for exchange, other in zip(exchanges, exchanges[1:]):
        assert verifier.refuses(dict(exchange, nonce=other["nonce"])), "accepted with the nonce of another request"
    for exchange, other in list(zip(exchanges, exchanges[1:]))[::10]:
        taken = exchange["headers"]["signature-input"].replace(exchange["nonce"], other["nonce"])
        other_input = dict(exchange["headers"], **{"signature-input": taken})
        assert verifier.refuses(dict(exchange, nonce=other["nonce"], headers=other_input)), "nonce replaced"
        proof = {name: other["headers"][name] for name in PROOF}
        assert verifier.refuses(dict(exchange, headers=dict(exchange["headers"], **proof))), "another answer's proof"
    # Flip every bit of one success and one refusal, the shortest ones, since there are many bits.
    with_body = sorted((exchange for exchange in exchanges if exchange["sent"]), key=lambda exchange: len(json.dumps(exchange)))
    yes, no = [[exchange for exchange in with_body if (exchange["status"] < 400) == good][:1] for good in (True, False)]
    # And of one with a query.
    asked = [exchange for exchange in exchanges if exchange["query"]][:1]
    for exchange in yes + no + asked:
        for part, forgery in forgeries(exchange):
            assert verifier.refuses(forgery), (part, forgery)
            forged[part] = forged.get(part, 0) + 1
    return {"signers": signers, "statuses": statuses, "forged": forged}


def leases(keys, tokens):
    claims = []
    for token in tokens:
        header = jwt.get_unverified_header(token)
        assert (header["alg"], header["typ"]) == ("EdDSA", "lease+jwt"), header
        key = load_pem_public_key(keys[header["kid"]].encode())
        decoded = jwt.decode(token, key, algorithms=["EdDSA"], options={"require": ["iat", "exp"]})
        claims.append(dict(decoded, kid=header["kid"]))
        signed = token.rindex(".")
        for place in range(0, len(token) - 2, 7):  # the last characters may have unused bits
            swapped = "A" if token[place] != "A" else "B"
            try:
                jwt.decode(token[:place] + swapped + token[place + 1 :], key, algorithms=["EdDSA"])
            except jwt.InvalidTokenError:
                continue
            raise AssertionError(f"accepted with another character at {place} of {signed}")
    return claims


with open(sys.argv[2]) as file:
    first, *rest = [json.loads(line) for line in file]
print(json.dumps({"answers": answers, "leases": leases}[sys.argv[1]](first, rest)))

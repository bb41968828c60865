"""What a store answers, in the product's words: a problem of one object, or a mistake that ends the command."""

from __future__ import annotations

import re

from prognosis_dask.errors import BucketError, CaseError, Code, PrognosisError
from prognosis_dask.objects.address import Address
from prognosis_dask.objects.signing import endpoint

_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken", "RequestExpired")
_UNKNOWN_KEY = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "UnrecognizedClientException")
_REGION = (
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "configured region",
)


def fault_of(error: Exception, address: Address) -> PrognosisError:
    """What to raise in place of an exception of obstore.

    A :class:`CaseError` where one object is missing (``OBJECT_MISSING``), closed (``OBJECT_FORBIDDEN``) or another one
    than it was (``OBJECT_CHANGED``); else a :class:`BucketError`: no such bucket, credentials, region, network.
    """
    kind, said = type(error).__name__, str(error)
    found = _of_access(said, address)
    if found is not None:
        return found
    if kind == "NotFoundError" or isinstance(error, FileNotFoundError):
        if "NoSuchBucket" in said:
            at = f" at {endpoint()}" if endpoint() and address.scheme == "s3" else ""
            return BucketError(f"there is no bucket {address.bucket!r}{at}; check its name")
        return CaseError(Code.OBJECT_MISSING, "there is no such object in the bucket (any more)", where=str(address))
    if kind in ("PermissionDeniedError", "UnauthenticatedError"):
        reason = "the bucket refuses to give it (403); ask its owner for the right to read, or set credentials"
        return CaseError(Code.OBJECT_FORBIDDEN, reason, where=str(address))
    if kind in ("PreconditionError", "NotModifiedError"):
        reason = "the object is another one than it was when the cohort was indexed; index the cohort again"
        return CaseError(Code.OBJECT_CHANGED, reason, where=str(address))
    server = endpoint() if address.scheme == "s3" else ""
    return BucketError(
        f"no answer from {address.scheme}://{address.bucket} ({_gist(said)}); check the network"
        f"{f' and AWS_ENDPOINT_URL ({server})' if server else ''}, and run the same command again"
    )


def _of_access(said: str, address: Address) -> BucketError | None:
    """What holds for the whole bucket: expired or unknown credentials, a clock that is wrong, another region."""
    where = f"{address.scheme}://{address.bucket}"
    if any(f"<Code>{code}<" in said for code in _EXPIRED):
        return BucketError(f"the credentials for {where} have expired; renew them, and run the same command again")
    if any(f"<Code>{code}<" in said for code in _UNKNOWN_KEY):
        return BucketError(f"the credentials for {where} are not known there; check the access key and its secret")
    if "<Code>RequestTimeTooSkewed<" in said:
        return BucketError(f"{where} refuses requests by this machine's clock, which is wrong by minutes; set it")
    if any(code in said for code in _REGION):
        named = re.search(r"<Region>([\w-]+)</Region>|<Endpoint>[\w.-]*?s3[.-]([a-z0-9-]+)\.amazonaws", said)
        region = next((group for group in named.groups() if group), "") if named else ""
        is_in = f" ({region})" if region else ""
        return BucketError(f"the bucket {address.bucket!r} lies in another region{is_in}; set AWS_REGION to it")
    return None


def _gist(said: str) -> str:
    """The cause in a message of several lines, without the addresses that it is wrapped in."""
    code = re.search(r"<Code>(\w+)</Code>", said)
    if code:
        return code[1]
    first = said.splitlines()[0] if said else "no reason given"
    inner = re.findall(r'error: "([^"]+)"', said) or re.findall(r'(?:source|message): "([^"]+)"|kind: (\w+)', said)
    inner = [one if isinstance(one, str) else "".join(one) for one in inner]
    shown = inner[-1] if inner else re.split(r":\s+", first)[-1]
    return shown[:160]

"""Secrets in files, and TLS towards a broker; what is refused is told in a person's words."""

import os
import ssl
from datetime import UTC, datetime
from pathlib import Path

from device.errors import PublishError

_NOT_YET_VALID, _EXPIRED = 9, 10
_OTHER_AUTHORITY = {18, 19, 20, 21}
_OTHER_NAME = {62, 64}
"""Codes of X509_V_ERR_*, openssl-verification-options(1)."""


def read_secret(path: Path) -> str:
    """Return the text of a file that nobody else may read; PublishError if it is missing or others may."""
    place = _place(path)
    # The folder of credentials is closed; the ACL of a file's one reader shows as bits of its group.
    others = 0o077 if place is path else 0o007
    try:
        if place.stat().st_mode & others:
            raise PublishError(f"{path} may be read by others; expected mode 0600, run chmod 600 {path}")
        return place.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PublishError(f"{path} cannot be read ({error}); expected a file of this user") from error


def client_context(ca_file: Path, cert_file: Path | None, key_file: Path | None) -> ssl.SSLContext:
    """Return TLS 1.2 or newer that checks the broker's certificate and name, and shows the own certificate.

    PublishError if a file is missing or damaged, or the key is open to others. There is no way to switch
    the checks off.
    """
    if key_file is not None:
        read_secret(key_file)
    try:
        context = ssl.create_default_context(cafile=str(_place(ca_file)))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if cert_file is not None and key_file is not None:
            context.load_cert_chain(_place(cert_file), _place(key_file), password=_refuse_password)
    except OSError as error:
        raise PublishError(
            f"TLS files of [publisher] cannot be used ({error}); expected PEM files, a key without password"
        ) from error
    return context


def is_tls_fault(error: Exception) -> bool:
    """Return whether a connection failed at TLS, not before it."""
    return isinstance(error, ssl.SSLError) or "handshake" in str(error)


def explain(error: Exception, host: str, port: int) -> str:
    """Return why there is no connection, for TLS what a person has to mend; equal faults, equal words."""
    broker, code = f"{host}:{port}", getattr(error, "verify_code", None)
    if code is None and is_tls_fault(error):
        return f"{broker} does not answer in TLS ({error}); expected the broker's TLS port, usually 8883"
    if code is None:
        return str(error)
    if code == _NOT_YET_VALID:
        return (
            f"the certificate of {broker} is not valid yet on {datetime.now(UTC):%Y-%m-%d}, this machine's "
            "date; waits until the clock is set, see timedatectl"
        )
    if code == _EXPIRED:
        return (
            f"the certificate of {broker} has expired on {datetime.now(UTC):%Y-%m-%d}, this machine's date; "
            "expected a valid one, renew it on the broker"
        )
    if code in _OTHER_AUTHORITY:
        return (
            f"the certificate of {broker} is of another authority than ca_file; expected the ca_file of the "
            "lab's own broker; find out whose broker that is before you change anything"
        )
    if code in _OTHER_NAME:
        return (
            f"the certificate of {broker} is for other names; expected {host} among them; "
            "call the broker by a name that it has, or renew its certificate"
        )
    return f"the certificate of {broker} is refused ({error}); renew it on the broker"


def explain_alert(line: str) -> str | None:
    """Return what the alert that ends a handshake means, if `line` of paho's log tells of one."""
    if "ALERT" not in line:
        return None
    alert = line.partition("[")[2].partition("]")[0]
    return (
        f"the broker refuses this certificate ({alert}); expected cert_file and key_file of the authority "
        "that the broker trusts, in force"
    )


def _place(path: Path) -> Path:
    """Return where a file is: systemd says at each start where it put the credentials of the service."""
    if path.parts[:1] != ("$CREDENTIALS_DIRECTORY",):
        return path
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise PublishError(
            f"{path} exists inside the service only; expected systemd to start this, or a path of your own"
        )
    return Path(folder, *path.parts[1:])


def _refuse_password() -> str:
    """Answer instead of OpenSSL, which would ask at a terminal where there is none."""
    return ""

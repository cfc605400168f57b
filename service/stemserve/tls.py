"""Serving HTTPS with a certificate that the environment holds as PEM texts."""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path

from stemserve.errors import SettingsError
from stemserve.settings import ENV_PREFIX, Settings

_LEFT_OVER = ".tls-"


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """What connections are wrapped in; None where plain HTTP is served.

    The library reads keys from files only. So there is one for a moment, in the data directory,
    which is its owner's alone.

    Raises:
        SettingsError: the certificate or its key is missing, is none, or they are no pair.
        OSError: the data directory cannot be written.
    """
    for left_over in settings.data_dir.glob(f"{_LEFT_OVER}*"):
        left_over.unlink()  # of a worker that was killed in that moment
    certificate, key = settings.tls_cert, settings.tls_key
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise SettingsError(
            f"tls_cert, tls_key: neither goes without the other; set {ENV_PREFIX}TLS_CERT and "
            f"{ENV_PREFIX}TLS_KEY to the PEM texts of both."
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with tempfile.NamedTemporaryFile(dir=settings.data_dir, prefix=_LEFT_OVER) as file:
        file.write(f"{key.get_secret_value()}\n{certificate}\n".encode())
        file.flush()
        try:
            # A password is none of ours, and nobody is there to be asked for one.
            context.load_cert_chain(Path(file.name), password="")
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or "unreadable"
            raise SettingsError(
                f"tls_cert, tls_key: no certificate with its key, as PEM texts ({reason}). "
                f"Correct {ENV_PREFIX}TLS_CERT and {ENV_PREFIX}TLS_KEY."
            ) from None
    return context

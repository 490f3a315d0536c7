"""What destinations of derived series have in common, and the settings of one that is reached by DICOMweb (PS3.18)."""

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from config.fields import Section, check_url, is_loopback
from config.syntax import Companion

_PORTS = {"http": 80, "https": 443}


def _each_once(names: tuple[Companion, ...]) -> tuple[Companion, ...]:
    if len(set(names)) < len(names):
        raise ValueError("each object should be named once")
    return names


def _service(value: str) -> str:
    return check_url(value, "https://host/path or https://host:8443/path, without a user, ? and #", with_path=True)


class Destination(Section):
    """A peer that receives the derived series; it is asked whether it is there when nobody has for `echo_s` seconds.

    echo_s: 0 is never. profile: the rules that a series must keep before any of it is sent (node/dicom/profiles).
    identity_check: whether it is asked, before the first image, whose the PatientID is there.
    companions: the objects that it gets beside the CT images.
    rejection_notes: whether it is told by a Key Object Selection (IHE IOCM) of results that were withdrawn.
    receives: "constancy" for one that gets the phantom of `syncect qa run` and never a result of a patient.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    echo_s: Annotated[int, Field(ge=0, le=86400)] = 300
    profile: Literal["generic", "eclipse", "raystation", "monaco", "pinnacle"] = "generic"
    identity_check: bool = False
    companions: Annotated[tuple[Companion, ...], AfterValidator(_each_once)] = ()
    rejection_notes: bool = False
    receives: Literal["results", "constancy"] = "results"


class HttpsSettings(Section):
    """TLS to a DICOMweb server: who signed its certificate (those that this machine trusts without `ca`), and our own.

    certificate, private_key: shown to the server where it asks for one.
    """

    ca: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together: give both or none")
        return self


class DicomwebSettings(Destination):
    """A destination that is sent to by STOW-RS (PS3.18 10.5) and asked by QIDO-RS (10.6) below `url`.

    allow_http: whether images and passwords may cross the network in clear. token_file: its one line is a bearer token;
    password_file: the password of `username`. Both files are read for each delivery.
    """

    kind: Literal["dicomweb"]
    url: Annotated[str, AfterValidator(_service)]
    allow_http: bool = False
    confirm: Literal["none", "find"] = "none"
    token_file: Path | None = None
    username: Annotated[str, Field(pattern=r"^[^:\x00-\x1f\x7f]{0,256}$")] = ""
    password_file: Path | None = None
    tls: HttpsSettings | None = None

    @model_validator(mode="after")
    def _nothing_in_clear(self) -> Self:
        if self.url.startswith("http:"):
            if not self.allow_http and not is_loopback(self.host):
                raise ValueError(
                    "with this url images would cross the network in clear; write https://, or allow it with "
                    "allow_http = true"
                )
            if self.tls is not None:
                raise ValueError("tls belongs to an url that begins with https://")
        return self

    @model_validator(mode="after")
    def _one_proof(self) -> Self:
        if bool(self.username) != (self.password_file is not None):
            raise ValueError("username and password_file belong together: give both or none")
        if self.username and self.token_file is not None:
            raise ValueError("token_file and username exclude each other: a request has one Authorization")
        return self

    @property
    def host(self) -> str:
        """Its host name or address."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Its TCP port."""
        parts = urlsplit(self.url)
        return parts.port or _PORTS[parts.scheme]

    @property
    def secret_file(self) -> Path | None:
        """The file with the token or the password."""
        return self.token_file or self.password_file

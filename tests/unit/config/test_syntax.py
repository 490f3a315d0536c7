"""AE titles and UIDs: what may be written, and that settings and UID maker agree on it."""

import pytest
from pydantic import ValidationError

from config.settings import DestinationSettings, NodeSettings, PeerSettings
from config.syntax import FOREIGN_UID, MAX_UID_ROOT_CHARS, NOT_IN_AE_TITLE, UID_ALPHABET, check_uid_root, is_ae_title
from node.dicom.uids import UidFactory

LONGEST_ROOT = "1.2.826.0.1.3680043.10.1234.123456789.1"
AE_TITLES = {"A": True, "CT SIM 1": True, "SIXTEEN LETTERS!": True, "~": True}
NO_AE_TITLES = {
    "": False,
    " CT": False,
    "CT ": False,
    "SEVENTEEN LETTERS": False,
    "A\\B": False,
    "É": False,
    "A\n": False,
}


@pytest.mark.parametrize(("title", "allowed"), [*AE_TITLES.items(), *NO_AE_TITLES.items()])
def test_an_ae_title_is_1_to_16_printable_characters_without_a_space_at_either_end(title: str, allowed: bool) -> None:
    assert is_ae_title(title) is allowed
    if allowed:
        assert PeerSettings(ae_title=title).ae_title == title
        assert not NOT_IN_AE_TITLE.search(title)
    else:
        with pytest.raises(ValidationError, match=r"AE title|one line"):
            PeerSettings(ae_title=title)


@pytest.mark.parametrize("root", ["1.2", "2.25", "1.2.826.0.1.3680043.10.99999", LONGEST_ROOT])
def test_settings_take_every_root_under_which_uids_can_be_made(root: str) -> None:
    assert NodeSettings(installation_uid_root=root).installation_uid_root == root
    uid = UidFactory(root).make("part")
    assert (uid.startswith(f"{root}."), len(uid) <= 64) == (True, True)
    assert len(uid) - len(root) - 1 >= 24


@pytest.mark.parametrize("root", ["1", "1.2.", "1.02", "3.1", "1.2;", "1.\u0662", f"{LONGEST_ROOT}9"])
def test_settings_refuse_every_root_that_the_maker_of_uids_refuses(root: str) -> None:
    with pytest.raises(ValidationError, match="UID root"):
        NodeSettings(installation_uid_root=root)
    with pytest.raises(ValueError, match="UID root"):
        UidFactory(root)


def test_the_bound_of_a_root_is_what_the_digits_behind_it_leave() -> None:
    assert len(LONGEST_ROOT) == MAX_UID_ROOT_CHARS == 64 - 1 - 24
    with pytest.raises(ValueError, match="at most 39 characters"):
        check_uid_root(f"{LONGEST_ROOT}9")


def test_a_uid_of_somebody_else_is_held_to_its_alphabet_and_a_length() -> None:
    for text in ("1..2", "1.02.003", "1" * 64):
        assert UID_ALPHABET.fullmatch(text)
        assert FOREIGN_UID.fullmatch(text)
    for text in ("1" * 65, "1" * 128):
        assert not UID_ALPHABET.fullmatch(text)
        assert FOREIGN_UID.fullmatch(text)
    for text in ("", "1.2\n", "1.2/3", "1.\u0662", "1" * 129):
        assert not UID_ALPHABET.fullmatch(text)
        assert not FOREIGN_UID.fullmatch(text)


@pytest.mark.parametrize(
    "host", ["10.1.2.3", "10.1.2.0/24", "::1", "2001:db8::/32", "ct-sim", "CT_SIM.clinic.example.", "3com"]
)
def test_a_peer_is_given_by_address_network_or_name(host: str) -> None:
    assert PeerSettings(ae_title="CT", host=host).host == host


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("10.1.2.300", "neither an IP address nor a host name"),
        ("10.1.2", "neither an IP address nor a host name"),
        ("10.1.2.5/24", r"write 10\.1\.2\.0/24"),
        ("10.1.2.0/33", "it is no network"),
        ("ct sim", "neither"),
        ("[::1]", "neither"),
        ("http://ct", "it is no network"),
        ("-ct", "neither"),
    ],
)
def test_what_is_no_host_is_told(host: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        PeerSettings(ae_title="CT", host=host)


@pytest.mark.parametrize("host", ["", "10.1.2.0/24", "10.1.2.256"])
def test_a_destination_is_one_host(host: str) -> None:
    with pytest.raises(ValidationError):
        DestinationSettings(name="tps", ae_title="TPS", host=host)

"""Read from a folder's security descriptor in text form (SDDL) who may change it on Windows.

https://learn.microsoft.com/windows/win32/secauthz/ace-strings
"""

from __future__ import annotations

import re

SYSTEM, ADMINISTRATORS, CREATOR, OWNER_RIGHTS = "SY", "BA", "CO", "OW"
TRUSTED_INSTALLER = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"
TRUSTED = frozenset({SYSTEM, ADMINISTRATORS, CREATOR, OWNER_RIGHTS, TRUSTED_INSTALLER, "S-1-5-18", "S-1-5-32-544"})
"""Users who can change everything on a machine anyway, and the creator of a folder."""

# Write or append data, write attributes, delete a child or the folder, change permissions or the owner, or all.
_WRITE = 0x2 | 0x4 | 0x10 | 0x40 | 0x100 | 0x10000 | 0x40000 | 0x80000 | 0x10000000 | 0x40000000
_MASKS = {
    "FA": 0x1F01FF, "FR": 0x120089, "FW": 0x120116, "FX": 0x1200A0,
    "GA": 0x10000000, "GR": 0x80000000, "GW": 0x40000000, "GX": 0x20000000,
    "RC": 0x20000, "SD": 0x10000, "WD": 0x40000, "WO": 0x80000,
    "CC": 0x1, "DC": 0x2, "LC": 0x4, "SW": 0x8, "RP": 0x10, "WP": 0x20, "DT": 0x40, "LO": 0x80, "CR": 0x100,
}  # fmt: skip
_ENTRY = re.compile(r"\((?P<kind>\w+);(?P<flags>\w*);(?P<rights>\w*);[^;]*;[^;]*;(?P<who>[^;)]+)[^)]*\)")
_SID = re.compile(r"\bS-1-[0-9-]+\b")


def writers(descriptor: str) -> frozenset[str]:
    """All users whom an entry of ``D:...`` lets change the folder, by their names in SDDL.

    Denying entries are ignored: a folder that needs one is not simple enough to be trusted. A descriptor without a
    list allows everything to everybody (``WD``).
    """
    if "D:" not in descriptor or "NO_ACCESS_CONTROL" in descriptor:
        return frozenset({"WD"})
    entries = _ENTRY.finditer(descriptor.partition("D:")[2].partition("S:")[0])
    return frozenset(
        entry["who"] for entry in entries if entry["kind"] in {"A", "OA", "XA"} and _may_write(entry["rights"])
    )


def unexpected_writers(descriptor: str, me: str) -> frozenset[str]:
    """The writers who are neither this user (a SID) nor trusted."""
    return writers(descriptor) - TRUSTED - {me}


def parse_saved(data: bytes) -> str:
    """The descriptor that ``icacls FOLDER /save FILE`` writes: the folder's name, then the descriptor, in UTF-16."""
    lines = data.decode("utf-16-le", errors="replace").lstrip("\ufeff").splitlines()
    return next((line for line in lines if line.startswith("D:")), "")


def parse_whoami(text: str) -> str | None:
    """The SID in the output of ``whoami /user /fo csv /nh`` in any language."""
    match = _SID.search(text)
    return match[0] if match else None


def _may_write(rights: str) -> bool:
    if rights.startswith("0x"):
        return bool(int(rights, 16) & _WRITE)
    pairs = (rights[index : index + 2] for index in range(0, len(rights), 2))
    return any(_MASKS.get(pair, _WRITE) & _WRITE for pair in pairs)  # an unknown right counts as the worst

"""Reading one encrypted file of the pgBackRest repository without pgBackRest, to prove that a cipher pass opens it.

Form (pgBackRest 2.55, src/common/crypto/cipherBlock.c): "Salted__", 8 bytes of salt, AES-256-CBC; key and
initialisation vector by OpenSSL's EVP_BytesToKey with SHA-1 and one round.
"""

from __future__ import annotations

import configparser
import json
from hashlib import sha1

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

MAGIC, SALT, KEY, BLOCK = b"Salted__", 8, 32, 16


def decrypted(content: bytes, cipher_pass: str) -> bytes:
    """The plain file. Raises ValueError where this is no such file, or the cipher pass is another one."""
    salt, body = content[len(MAGIC) : len(MAGIC) + SALT], content[len(MAGIC) + SALT :]
    if not content.startswith(MAGIC) or not body or len(body) % BLOCK:
        raise ValueError("no encrypted file of pgBackRest")
    made = last = b""
    while len(made) < KEY + BLOCK:
        last = sha1(last + cipher_pass.encode() + salt, usedforsecurity=False).digest()
        made += last
    cipher = Cipher(algorithms.AES256(made[:KEY]), modes.CBC(made[KEY : KEY + BLOCK])).decryptor()
    padding = PKCS7(BLOCK * 8).unpadder()
    return padding.update(cipher.update(body) + cipher.finalize()) + padding.finalize()


def labels(content: bytes, cipher_pass: str) -> list[str]:
    """Labels of the backups in a `backup.info`, oldest first. Raises ValueError as above."""
    # The section `backrest` is there twice.
    info = configparser.ConfigParser(interpolation=None, delimiters=("=",), strict=False)
    info.optionxform = str  # type: ignore[method-assign,assignment]  # labels have capital letters
    try:
        info.read_string(decrypted(content, cipher_pass).decode())
    except (UnicodeDecodeError, configparser.Error):
        raise ValueError("what comes out is no text of pgBackRest") from None
    found = dict(info["backup:current"]) if info.has_section("backup:current") else {}
    return sorted(label for label, text in found.items() if json.loads(text))

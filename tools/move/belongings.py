"""Which files of a data directory go with its log. The views do not: they are made of it."""

from api import keys

CHECKPOINTS_FILE = "checkpoints.jsonl"
AUDIT_KEY_FILE = "audit.key"
AUDIT_PUBLIC_FILE = "audit.pub"

OPEN = (keys.FILE, CHECKPOINTS_FILE, AUDIT_PUBLIC_FILE)  # digests, signatures: nothing in them opens anything
SECRET = (keys.FIRST_KEY_FILE, AUDIT_KEY_FILE)
OF_THE_LOG = (CHECKPOINTS_FILE,)  # what they say holds for one log, and for no other

"""Which files of a data directory go with its log. The views do not: they are made of it."""

from api import keys
from eventstore.proofs import audit_key
from eventstore.proofs.checkpoint import CHECKPOINTS_FILE

OPEN = (keys.FILE, CHECKPOINTS_FILE, audit_key.PUBLIC_FILE)  # digests, signatures: nothing in them opens anything
SECRET = (keys.FIRST_KEY_FILE, audit_key.KEY_FILE)
OF_THE_LOG = (CHECKPOINTS_FILE,)  # what they say holds for one log, and for no other

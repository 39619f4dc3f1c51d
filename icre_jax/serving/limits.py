"""What a server takes, so that nobody fills its memory or keeps it busy for ever; docs/serve.md has the reasons."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """All limits of a server in one place.

    Attributes:
      body_bytes: of an image as it is sent.
      pixels: of an image that is sent, read from its header before anything is decoded.
      head_seconds: until the head of a request is there.
      body_seconds: until its image is there.
      connection_seconds: of a connection, which is one request and its answer.
      connections: at a time.
      searches: that wait or are in work; each holds at most `body_bytes`.
      thumbnails: that wait or are in work.
    """

    body_bytes: int = 8 * 2**20
    pixels: int = 2**24
    head_seconds: float = 10
    body_seconds: float = 20
    connection_seconds: float = 60
    connections: int = 256
    searches: int = 8
    thumbnails: int = 64

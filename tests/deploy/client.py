"""The programs in the pod, on Python's own mail libraries: one puts messages into the mailbox by IMAP, one fetches and
deletes them by POP3. Standard output is the dialogue, in short."""

import imaplib
import pathlib
import poplib
import socket
import ssl
import sys
import time

MESSAGES = ["8bit.eml", "dots.eml", "five.eml", "looks-like-imap.eml", "no-body.eml"]
USER, PASSWORD = "alice", "wonderland"


def deliver():
    with patiently(lambda: imaplib.IMAP4("127.0.0.1", 143)) as imap:
        imap.login(USER, PASSWORD)
        for message in read():
            answer, words = imap.append("INBOX", None, None, message)
            assert answer == "OK", words


def greeting():
    """Waits for popgate and says when it spoke, in nanoseconds."""
    with patiently(lambda: socket.create_connection(("127.0.0.1", 1110))) as line:
        octets = line.recv(512)
        now = time.time_ns()
    assert octets.startswith(b"+OK"), octets
    print(now)


def fetch():
    pop3 = log_in()
    show("STAT", pop3.stat())
    show("LIST", pop3.list())
    show("UIDL", pop3.uidl())
    for number, message in enumerate(read(), 1):
        answer, lines, _ = pop3.retr(number)
        same = b"".join(line + b"\r\n" for line in lines) == message
        show(f"RETR {number}", answer, "octet for octet" if same else "DIFFERENT")
        assert same, (lines, message)
    show("DELE 2", pop3.dele(2))
    show("QUIT", pop3.quit())
    pop3 = log_in()
    count, _ = pop3.stat()
    show("STAT, in the next session", (count, ...))
    assert count == len(MESSAGES) - 1
    pop3.quit()


def tls():
    """TLS from the first octet, and STLS; the password of this test would be refused without either."""
    trusted = ssl.create_default_context(cafile="/tls.crt")
    pop3s = patiently(lambda: poplib.POP3_SSL("127.0.0.1", 1995, context=trusted))
    show("pop3s", pop3s.getwelcome(), pop3s.sock.version())
    pop3s.quit()
    stls = poplib.POP3("127.0.0.1", 1110)
    show("STLS", stls.stls(trusted), stls.sock.version())
    stls.quit()


def log_in():
    pop3 = poplib.POP3("127.0.0.1", 1110)
    show("greeting", pop3.getwelcome())
    pop3.user(USER)
    show("PASS", pop3.pass_(PASSWORD))
    return pop3


def read():
    """The messages as IMAP has them: each ends its last line."""
    messages = [pathlib.Path("/mail", name).read_bytes() for name in MESSAGES]
    return [message if message.endswith(b"\n") else message + b"\r\n" for message in messages]


def patiently(connect):
    deadline = time.monotonic() + 30
    while True:
        try:
            return connect()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)


def show(*words):
    print(*words, sep="  ")


if __name__ == "__main__":
    {"deliver": deliver, "greeting": greeting, "fetch": fetch, "tls": tls}[sys.argv[1]]()

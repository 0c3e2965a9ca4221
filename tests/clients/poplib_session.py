"""A mail program in Python: reads every message, deletes every second one, quits.

poplib_session.py PORT USER PASSWORD DIRECTORY

Each message goes into DIRECTORY/NUMBER as the program received it. STAT, LIST and UIDL must agree with each other;
anything else that is out of order raises.
"""

import pathlib
import poplib
import sys

port, user, password, directory = sys.argv[1:]

# Lines of mail may be longer than the 2,048 octets that poplib takes by default; a gateway does not wrap them.
poplib._MAXLINE = 10_000_000

pop3 = poplib.POP3("127.0.0.1", int(port), timeout=60)
capabilities = pop3.capa()
for needed in ("TOP", "UIDL", "USER", "SASL", "PIPELINING", "RESP-CODES"):
    assert needed in capabilities, (needed, capabilities)
pop3.user(user)
pop3.pass_(password)

count, total = pop3.stat()
sizes = [int(line.split()[1]) for line in pop3.list()[1]]
ids = [line.split()[1] for line in pop3.uidl()[1]]
assert len(sizes) == count and sum(sizes) == total, (count, total, sizes)
assert len(set(ids)) == count, ids

for number in range(1, count + 1):
    lines = pop3.retr(number)[1]
    message = b"".join(line + b"\r\n" for line in lines)
    pathlib.Path(directory, str(number)).write_bytes(message)
    # TOP with more lines than there are is the whole message, too.
    assert pop3.top(number, 10_000_000)[1] == lines, number
    assert pop3.uidl(number).split()[2] == ids[number - 1], number

for number in range(2, count + 1, 2):
    pop3.dele(number)
assert pop3.stat()[0] == count - count // 2
assert len(pop3.list()[1]) == count - count // 2
pop3.quit()

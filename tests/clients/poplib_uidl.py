"""Prints the unique-ids of a maildrop as poplib reads them, a line `NUMBER ID` each.

poplib_uidl.py PORT USER PASSWORD
"""

import poplib
import sys

port, user, password = sys.argv[1:]

pop3 = poplib.POP3("127.0.0.1", int(port), timeout=60)
pop3.user(user)
pop3.pass_(password)
for line in pop3.uidl()[1]:
    print(line.decode("ascii"))
pop3.quit()

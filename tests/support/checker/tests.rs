//! Each kind of finding, found; and what is none.

use super::*;

/// Tim has messages 1 to 3, Ann has 4. Tim has logged in.
fn history() -> (History, SessionId) {
    let mut history = History::default();
    for (id, user) in [(1, "tim"), (2, "tim"), (3, "tim"), (4, "ann")] {
        history.delivered(id, user, shown(id));
        history.named(id, &format!("u{id}"));
    }
    let tim = history.began("tim");
    (history, tim)
}

fn shown(id: u64) -> Vec<u8> {
    format!("X-Id: {id}\r\n\r\nBody\r\n").into_bytes()
}

fn all() -> Vec<(&'static str, Vec<u64>)> {
    vec![("tim", vec![1, 2, 3]), ("ann", vec![4])]
}

type Happens = fn(&mut History, SessionId);

/// The kinds of what is found when that happens and this is left.
fn found(happens: impl FnOnce(&mut History, SessionId), tims: &[u64]) -> Vec<Kind> {
    let (mut history, tim) = history();
    happens(&mut history, tim);
    history.check(&[("tim", tims.to_vec()), ("ann", vec![4])]).into_iter().map(|finding| finding.kind).collect()
}

fn quit(history: &mut History, session: SessionId, ids: &[u64], answer: Quit) {
    ids.iter().for_each(|id| history.deleted(session, *id));
    history.quitting(session);
    history.quit(session, answer);
}

#[test]
fn a_good_session_is_good() {
    let happens = |history: &mut History, tim: SessionId| {
        assert_eq!(history.listed(tim, &["u1", "u2", "u3"]), [1, 2, 3]);
        history.fetched(tim, 1, &shown(1));
        quit(history, tim, &[1], Quit::Done);
        let again = history.began("tim");
        history.listed(again, &["u2", "u3"]);
        assert_eq!(history.deletions(), (1, 0));
    };
    assert_eq!(found(happens, &[2, 3]), []);
}

#[test]
fn lost() {
    assert_eq!(found(|_, _| {}, &[1, 3]), [Kind::Lost]);
    // DELE alone, DELE and RSET, and QUIT alone remove nothing (RFC 1939 §6).
    assert_eq!(found(|history, tim| history.deleted(tim, 2), &[1, 3]), [Kind::Lost]);
    let reset = |history: &mut History, tim| {
        history.deleted(tim, 2);
        history.reset(tim);
        quit(history, tim, &[1], Quit::Done);
    };
    assert_eq!(found(reset, &[3]), [Kind::Lost]);
    assert_eq!(found(|history, tim| quit(history, tim, &[], Quit::Done), &[1, 3]), [Kind::Lost]);
    // What is deleted once QUIT has been sent is too late.
    let late = |history: &mut History, tim| {
        quit(history, tim, &[], Quit::Done);
        history.deleted(tim, 2);
    };
    assert_eq!(found(late, &[1, 3]), [Kind::Lost]);
    assert_eq!(found(|history, _| history.removed(2), &[1, 3]), []);
    // A promise, and a DELE that was refused behind the QUIT.
    assert_eq!(found(|history, tim| quit(history, tim, &[2], Quit::Nothing), &[1, 3]), [Kind::Lost]);
    let refused = |history: &mut History, tim| {
        history.deleted(tim, 2);
        history.quitting(tim);
        history.refused(tim, 2);
        history.quit(tim, Quit::Done);
    };
    assert_eq!(found(refused, &[1, 3]), [Kind::Lost]);
    for answer in [Quit::Refused, Quit::Unanswered] {
        for left in [&[1, 2, 3][..], &[1, 3]] {
            assert_eq!(found(|history, tim| quit(history, tim, &[2], answer), left), [], "{answer:?}");
        }
    }
}

#[test]
fn zombie() {
    assert_eq!(found(|history, tim| quit(history, tim, &[2], Quit::Done), &[1, 2, 3]), [Kind::Zombie]);
    let again = |history: &mut History, tim| {
        let meanwhile = history.began("tim");
        quit(history, tim, &[2], Quit::Done);
        history.listed(meanwhile, &["u1", "u2", "u3"]);
        let later = history.began("tim");
        history.listed(later, &["u1", "u2", "u3"]);
    };
    assert_eq!(found(again, &[1, 3]), [Kind::Zombie]);
}

#[test]
fn phantom() {
    assert_eq!(found(|_, _| {}, &[1, 2, 3, 5]), [Kind::Phantom]);
    assert_eq!(found(|_, _| {}, &[1, 2, 3, 3]), [Kind::Phantom]);
    assert_eq!(found(|_, _| {}, &[1, 2, 3, 4])[0], Kind::Phantom);
    let listed = |history: &mut History, tim| {
        history.listed(tim, &["u1", "u2", "u3", "u4"]);
    };
    assert_eq!(found(listed, &[1, 2, 3]), [Kind::Phantom]);
}

#[test]
fn truncated() {
    for octets in [&shown(1)[..10], b"", &shown(2), &[shown(1), shown(1)].concat()] {
        assert_eq!(found(|history, tim| history.fetched(tim, 1, octets), &[1, 2, 3]), [Kind::Truncated]);
    }
    let header = &shown(1)[..11];
    let cases = [
        (0, header, &[][..]),
        (0, &header[..9], &[Kind::Truncated]),
        (0, &shown(1), &[Kind::Truncated]),
        (1, &shown(1), &[]),
        (1, header, &[Kind::Truncated]),
        (99_999_999, &shown(1), &[]),
        (99_999_999, header, &[Kind::Truncated]),
        (0, &shown(2)[..11], &[Kind::Truncated]),
    ];
    for (lines, octets, kinds) in cases {
        assert_eq!(found(|history, tim| history.peeked(tim, 1, lines, octets), &[1, 2, 3]), kinds, "{lines}");
    }
}

#[test]
fn foreign() {
    assert_eq!(found(|history, tim| history.fetched(tim, 1, &shown(4)), &[1, 2, 3]), [Kind::Foreign]);
    let mixed = [&shown(1)[..], &shown(4)[..9]].concat();
    assert_eq!(found(|history, tim| history.fetched(tim, 1, &mixed), &[1, 2, 3]), [Kind::Foreign]);
    assert_eq!(found(|history, tim| history.fetched(tim, 4, &shown(4)), &[1, 2, 3])[0], Kind::Foreign);
}

#[test]
fn uidl_conflict() {
    assert_eq!(found(|history, _| history.named(1, "u2"), &[1, 2, 3]), [Kind::UidlConflict]);
    let listed = |history: &mut History, tim| {
        history.listed(tim, &["u1", "u2", "u2", "u3"]);
    };
    assert_eq!(found(listed, &[1, 2, 3]), [Kind::UidlConflict]);
    // Another user may have the same.
    assert_eq!(found(|history, _| history.named(4, "u2"), &[1, 2, 3]), []);
}

#[test]
fn unlisted() {
    let short = |history: &mut History, tim| {
        history.listed(tim, &["u1", "u3"]);
    };
    assert_eq!(found(short, &[1, 2, 3]), [Kind::Unlisted]);
    let new = |history: &mut History, tim| {
        history.removed(1);
        history.delivered(7, "tim", shown(7));
        history.listed(tim, &["u2", "u3"]);
    };
    assert_eq!(found(new, &[2, 3, 7]), []);
    let doomed = |hides| {
        move |history: &mut History, tim| {
            history.hides = hides;
            history.doomed(1);
            history.listed(tim, &["u2", "u3"]);
        }
    };
    assert_eq!(found(doomed(true), &[1, 2, 3]), []);
    assert_eq!(found(doomed(true), &[2, 3]), [Kind::Lost]);
    assert_eq!(found(doomed(false), &[1, 2, 3]), [Kind::Unlisted]);
    // Where nothing else happens there is no excuse.
    for (listed, kinds) in [(&[1, 2, 3][..], &[][..]), (&[1, 3], &[Kind::Unlisted]), (&[1, 2, 3, 4], &[Kind::Phantom])]
    {
        assert_eq!(found(|history, tim| history.compared(tim, listed, &[1, 2, 3]), &[1, 2, 3]), kinds);
    }
}

#[test]
fn doubt_ends_with_its_session() {
    for answer in [Quit::Refused, Quit::Unanswered] {
        let over = |flagged: bool| {
            move |history: &mut History, tim: SessionId| {
                quit(history, tim, &[2], answer);
                history.over(tim, &[(1, false), (2, flagged), (3, false)]);
            }
        };
        // What was there then is not removed later, is listed, and is not said to be gone.
        assert_eq!(found(over(false), &[1, 2, 3]), []);
        assert_eq!(found(over(false), &[1, 3]), [Kind::Lost]);
        assert_eq!(found(over(true), &[1, 3]), [Kind::Lost]);
        let then = |flagged: bool, happens: Happens| {
            move |history: &mut History, tim: SessionId| {
                over(flagged)(history, tim);
                let later = history.began("tim");
                happens(history, later);
            }
        };
        let unlisted = |history: &mut History, later| _ = history.listed(later, &["u1", "u3"]);
        assert_eq!(found(then(false, unlisted), &[1, 2, 3]), [Kind::Unlisted]);
        assert_eq!(found(then(false, |history, later| history.told_gone(later, 2)), &[1, 2, 3]), [Kind::FalselyGone]);
        // What it has flagged goes when another actor purges the mailbox.
        assert_eq!(found(then(true, |history, _| history.purged(2)), &[1, 3]), []);
        assert_eq!(found(then(false, |history, _| history.purged(2)), &[1, 3]), [Kind::Flagged]);
        // Another session's doubt stays.
        let other = |history: &mut History, tim: SessionId| {
            let other = history.began("tim");
            quit(history, other, &[2], answer);
            over(false)(history, tim);
        };
        assert_eq!(found(other, &[1, 3]), []);
        // What had gone by then may have been removed by it.
        let gone = |history: &mut History, tim: SessionId| {
            quit(history, tim, &[2], answer);
            history.over(tim, &[(1, false), (3, false)]);
        };
        assert_eq!(found(gone, &[1, 3]), []);
    }
}

#[test]
fn flagged() {
    for flag in ["\\Deleted", "\\Seen"] {
        assert_eq!(found(|history, _| history.flagged(1, flag), &[1, 2, 3]), [Kind::Flagged]);
    }
    let doomed = |history: &mut History, _| {
        history.doomed(1);
        history.flagged(1, "\\Deleted");
        history.purged(1);
        history.seen(2);
        history.flagged(2, "\\Seen");
    };
    assert_eq!(found(doomed, &[2, 3]), []);
    let refused = |history: &mut History, tim| {
        quit(history, tim, &[1], Quit::Refused);
        history.flagged(1, "\\Deleted");
    };
    assert_eq!(found(refused, &[1, 2, 3]), []);
    let promised = |history: &mut History, tim| {
        quit(history, tim, &[1], Quit::Nothing);
        history.flagged(1, "\\Deleted");
    };
    assert_eq!(found(promised, &[1, 2, 3]), [Kind::Flagged]);
    assert_eq!(found(|history, _| history.purged(1), &[2, 3]), [Kind::Flagged]);
}

#[test]
fn misstated() {
    let sized = |happens: Happens| {
        move |history: &mut History, tim: SessionId| {
            [1, 2, 3].into_iter().for_each(|id| history.sized(id, 100 + id, 200 + id));
            happens(history, tim);
        }
    };
    let cases: [(Happens, &[Kind]); 8] = [
        (|history, tim| history.measured(tim, &[1, 2, 3], &[201, 202, 203]), &[]),
        (|history, tim| history.measured(tim, &[1, 2, 3], &[201, 202, 204]), &[Kind::Misstated]),
        (|history, tim| history.measured(tim, &[1, 2, 3], &[201, 202]), &[Kind::Misstated]),
        (|history, tim| history.summed(tim, &[1, 3], 2, 404), &[]),
        (|history, tim| history.summed(tim, &[1, 3], 3, 404), &[Kind::Misstated]),
        (|history, tim| history.summed(tim, &[1, 3], 2, 405), &[Kind::Misstated]),
        (|history, tim| history.announced(tim, 1, 101), &[]),
        (|history, tim| history.announced(tim, 1, 201), &[Kind::Misstated]),
    ];
    for (happens, kinds) in cases {
        assert_eq!(found(sized(happens), &[1, 2, 3]), kinds);
    }
}

#[test]
fn falsely_gone() {
    assert_eq!(found(|history, tim| history.told_gone(tim, 2), &[1, 2, 3]), [Kind::FalselyGone]);
    let gone = |history: &mut History, tim| {
        history.removed(2);
        history.told_gone(tim, 2);
    };
    assert_eq!(found(gone, &[1, 3]), []);
}

#[test]
fn falsely_denied() {
    assert_eq!(found(|history, tim| history.accused(tim, "-ERR [AUTH]"), &[1, 2, 3]), [Kind::FalselyDenied]);
}

#[test]
fn let_in() {
    assert_eq!(found(|history, tim| history.let_in(tim), &[1, 2, 3]), [Kind::LetIn]);
}

#[test]
fn stuck() {
    assert_eq!(found(|history, _| history.stuck("tim's last session"), &[1, 2, 3]), [Kind::Stuck]);
    let (history, _) = history();
    assert_eq!(history.check(&all()), []);
}

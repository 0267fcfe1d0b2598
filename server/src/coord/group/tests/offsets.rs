//! Who may commit, fetch and delete offsets, and when they expire.

use super::script::check;

#[test]
fn offsets_are_committed_fetched_and_deleted() {
    check(
        "
        fetch t-0
            fetch t-0 none
        fetch
            fetch 
        commit a 1 t-0=5
            a IllegalGeneration
        commit - -1 t-0=5:note u-3=0
            write t-0=5
            write u-3=0
            - ok ok
        commit - -1 t-0=6:a-note-that-is-too-long t-1=9
            write t-1=9
            - OffsetMetadataTooLarge ok
        fetch t-0 t-1 t-2
            fetch t-0=5:note t-1=9: t-2 none
        list
            g  Empty
        describe
            describe Empty [] []
        restart
        fetch
            fetch t-0=5:note t-1=9: u-3=0:
        undo t-0 t-9
            write t-0 deleted
            undo ok ok
        gone t v
            write t-1 deleted
        delete
            write u-3 deleted
            delete deleted
        delete
            delete GroupIdNotFound
        undo t-0
            undo GroupIdNotFound
        describe
            describe GroupIdNotFound
        list
        ",
    );
}

#[test]
fn offsets_of_a_group_with_members_are_guarded() {
    check(
        "
        join a meta=t
        commit - -1 t-0=1
            - UnknownMemberId
        wait 6000
            a joined as a gen=1 range leader=a members=a
        sync a 1
            write group gen=1 members=1
            a synced b\"\"
        commit - -1 t-0=1
            - UnknownMemberId
        commit x 1 t-0=1
            x UnknownMemberId
        commit a 2 t-0=1
            a IllegalGeneration
        commit a -1 t-0=1
            a IllegalGeneration
        commit a 1 t-0=1 u-0=2
            write t-0=1
            write u-0=2
            a ok ok
        undo t-0 u-0
            write u-0 deleted
            undo GroupSubscribedToTopic ok
        delete
            delete NonEmptyGroup
        leave a
            write group gen=2 members=0
            a ok
        commit a 2 t-0=9
            a UnknownMemberId
        undo t-0
            write t-0 deleted
            undo ok
        delete
            write group deleted
            delete deleted
        restart
        list
        ",
    );
    check(
        "
        join w type=connect
        undo t-0
            undo NonEmptyGroup
        ",
    );
}

#[test]
fn committing_keeps_a_session_alive() {
    check(
        "
        join a session=6000
        wait 3000
            a joined as a gen=1 range leader=a members=a
        sync a 1
            write group gen=1 members=1
            a synced b\"\"
        wait 5000
        commit a 1 t-0=1
            write t-0=1
            a ok
        wait 5999
        beat a 1
            a alive
        wait 6000
            write group gen=2 members=0
        ",
    );
}

#[test]
fn offsets_expire_once_the_group_is_empty() {
    check(
        "
        commit - -1 solo-0=1
            write solo-0=1
            - ok
        join a meta=t session=1800000
        wait 6000
            a joined as a gen=1 range leader=a members=a
        sync a 1
            write group gen=1 members=1
            a synced b\"\"
        commit a 1 t-0=1
            write t-0=1
            a ok
        wait 593999
        expire
        wait 1
        expire
            write solo-0 deleted
        wait 600000
        expire
        leave a
            write group gen=2 members=0
            a ok
        restart
        wait 599999
        expire
        wait 1
        expire
            write t-0 deleted
            write group deleted
        list
        ",
    );
    check(
        "
        commit - -1 t-0=1
            write t-0=1
            - ok
        wait 599999
        commit - -1 t-1=1
            write t-1=1
            - ok
        wait 1
        expire
            write t-0 deleted
        ",
    );
}

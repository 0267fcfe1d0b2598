//! What is refused: sizes, timeouts, memory, names.

use std::sync::Arc;

use super::{
    super::{GroupError, Heartbeat, Reply, Verb},
    harness::{World, rules},
    script::{check, check_with},
};

#[test]
fn limits_of_timeouts_size_and_memory() {
    check(
        "
        join a session=5999
            a InvalidSessionTimeout
        join a session=1800001
            a InvalidSessionTimeout
        join a id
            a UnknownMemberId
        join a
        join b
        join c
        join d
        join e
            e GroupMaxSizeReached
        wait 6000
            a joined as a gen=1 range leader=a members=a+b+c+d
            b joined as b gen=1 range leader=a
            c joined as c gen=1 range leader=a
            d joined as d gen=1 range leader=a
        join e
            e GroupMaxSizeReached
        leave d
            d ok
        join e
        room 10
        join f
            f GroupMaxSizeReached
        commit a 1 t-0=1
            a CoordinatorNotAvailable
        room 1000
        commit a 1 t-0=1
            write t-0=1
            a ok
        room 10
        commit a 1 t-0=2
            write t-0=2
            a ok
        ",
    );
    check(
        "
        room 100
        join a
            a CoordinatorNotAvailable
        commit - -1 t-0=1
            - CoordinatorNotAvailable
        list
        ",
    );
}

#[test]
fn an_assignment_too_large_for_the_log_starts_over() {
    let mut small = rules();
    small.batch_bytes_max = 2_000;
    let script = format!(
        "
        join a
        wait 3000
            a joined as a gen=1 range leader=a members=a
        sync a 1 a={}
            a AssignmentTooLarge
        beat a 1
            a RebalanceInProgress
        join a id
            a joined as a gen=2 range leader=a members=a
        ",
        "x".repeat(2_000)
    );
    check_with(small, &script);
}

#[test]
fn a_group_larger_than_allowed_after_a_restart_rebalances() {
    check(
        "
        join a
        join b
        wait 6000
            a joined as a gen=1 range leader=a members=a+b
            b joined as b gen=1 range leader=a
        sync a 1
            write group gen=1 members=2
            a synced b\"\"
        sync b 1
            b synced b\"\"
        limit 1
        restart
        beat b 1
            b RebalanceInProgress
        join b id
        join a id
            a GroupMaxSizeReached
        wait 10000
            b joined as b gen=2 range leader=b members=b
        ",
    );
}

#[test]
fn empty_and_oversized_names_are_refused() {
    let mut world = World::new(rules());
    let mut refused = |group: &str, verb: fn(Arc<str>) -> Verb| {
        let (_, (_, replies)) = world.request(verb(group.into()));
        match &replies[..] {
            [(_, Reply::Refused(error))] => *error,
            other => panic!("{other:?}"),
        }
    };
    let long = "x".repeat(40_000);
    let beat = |group| {
        Verb::Heartbeat(Heartbeat {
            group,
            member_id: "m".into(),
            instance_id: None,
            generation: 0,
        })
    };
    assert_eq!(refused("", beat), GroupError::InvalidGroupId);
    assert_eq!(refused(&long, beat), GroupError::InvalidGroupId);
}

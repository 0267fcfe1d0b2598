//! Members come, go, die and come late.

use super::script::check;

#[test]
fn one_member_joins_syncs_beats_and_leaves() {
    check(
        "
        join a known
            a needs id a
        join a id known
        wait 2999
        wait 1
            a joined as a gen=1 range leader=a members=a
        describe
            describe CompletingRebalance [consumer] [] a=b\"\"
        beat a 1
            a alive
        sync a 1 a=x
            write group gen=1 members=1
            a synced b\"x\"
        describe
            describe Stable [consumer] [range] a=b\"x\"
        sync a 1
            a synced b\"x\"
        beat a 0
            a IllegalGeneration
        beat b 1
            b UnknownMemberId
        leave a
            write group gen=2 members=0
            a ok
        beat a 1
            a UnknownMemberId
        list
            g consumer Empty
        list stable
        ",
    );
}

#[test]
fn two_members_share_and_the_follower_is_told_its_part() {
    check(
        "
        join a
        wait 1000
        join b
        wait 2000
        wait 3000
            a joined as a gen=1 range leader=a members=a+b
            b joined as b gen=1 range leader=a
        sync b 1
        sync a 0 a=old
            a IllegalGeneration
        sync a 2 a=new
            a IllegalGeneration
        sync a 1 a=p0 b=p1
            write group gen=1 members=2
            a synced b\"p0\"
            b synced b\"p1\"
        beat b 1
            b alive
        ",
    );
}

#[test]
fn a_third_member_starts_a_rebalance_and_all_come_back() {
    check(
        "
        join a
        wait 3000
            a joined as a gen=1 range leader=a members=a
        sync a 1 a=all
            write group gen=1 members=1
            a synced b\"all\"
        join b
        beat a 1
            a RebalanceInProgress
        commit a 1 t-0=7
            write t-0=7
            a ok
        sync a 1
            a RebalanceInProgress
        join a id
            a joined as a gen=2 range leader=a members=a+b
            b joined as b gen=2 range leader=a
        commit a 2 t-0=8
            a RebalanceInProgress
        commit a 1 t-0=8
            a IllegalGeneration
        sync a 2 a=p0
            write group gen=2 members=2
            a synced b\"p0\"
        sync b 2
            b synced b\"\"
        commit b 2 t-1=9
            write t-1=9
            b ok
        ",
    );
}

#[test]
fn members_that_do_not_rejoin_are_dropped() {
    check(
        "
        join a rebalance=20000 session=6000
        join b rebalance=30000 session=1800000
        wait 3000
        wait 3000
            a joined as a gen=1 range leader=a members=a+b
            b joined as b gen=1 range leader=a
        sync a 1
            write group gen=1 members=2
            a synced b\"\"
        sync b 1
            b synced b\"\"
        join a id rebalance=20000 session=6000
        wait 29999
        wait 1
            a joined as a gen=2 range leader=a members=a
        beat b 1
            b UnknownMemberId
        ",
    );
}

#[test]
fn the_leader_dies_and_another_leads() {
    check(
        "
        join a session=6000
        join b session=30000
        wait 6000
            a joined as a gen=1 range leader=a members=a+b
            b joined as b gen=1 range leader=a
        sync b 1
        wait 6000
            b RebalanceInProgress
        join b id session=30000
            b joined as b gen=2 range leader=b members=b
        sync b 2 b=all
            write group gen=2 members=1
            b synced b\"all\"
        wait 29999
        wait 1
            write group gen=3 members=0
        describe
            describe Empty [consumer] []
        ",
    );
}

#[test]
fn an_unanswered_first_join_ends() {
    check(
        "
        join a session=1800000 rebalance=1800000
        wait 6000
            a joined as a gen=1 range leader=a members=a
        sync a 1
            write group gen=1 members=1
            a synced b\"\"
        join b session=10000
        wait 299999
        wait 1
            b UnknownMemberId
        join a id session=1800000
            a joined as a gen=2 range leader=a members=a
        ",
    );
}

#[test]
fn whoever_does_not_sync_in_time_is_dropped() {
    check(
        "
        join a rebalance=20000 session=60000
        join b rebalance=20000 session=60000
        wait 6000
            a joined as a gen=1 range leader=a members=a+b
            b joined as b gen=1 range leader=a
        sync a 1 a=x
            write group gen=1 members=2
            a synced b\"x\"
        wait 19999
        beat a 1
            a alive
        wait 1
        beat a 1
            a RebalanceInProgress
        join a id
            a joined as a gen=2 range leader=a members=a
        ",
    );
}

#[test]
fn a_retried_join_or_sync_replaces_the_parked_one() {
    check(
        "
        join a known
            a needs id a
        join a id
        join a id
            a RebalanceInProgress
        wait 3000
            a joined as a gen=1 range leader=a members=a
        join a id
            a joined as a gen=1 range leader=a members=a
        join b
        join a id meta=u
            a joined as a gen=2 range leader=a members=a+b
            b joined as b gen=2 range leader=a
        sync b 2
        sync b 2
            b RebalanceInProgress
        sync a 2 b=x
            write group gen=2 members=2
            a synced b\"\"
            b synced b\"x\"
        ",
    );
}

#[test]
fn a_follower_that_changes_nothing_gets_the_present_generation() {
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
        join b id
            b joined as b gen=1 range leader=a
        join b id meta=other
        beat a 1
            a RebalanceInProgress
        ",
    );
}

#[test]
fn an_id_given_out_holds_up_the_rebalance_until_it_expires() {
    check(
        "
        join a
        wait 3000
            a joined as a gen=1 range leader=a members=a
        sync a 1
            write group gen=1 members=1
            a synced b\"\"
        join b known session=8000
            b needs id b
        join a id
        wait 7999
        wait 1
            a joined as a gen=2 range leader=a members=a
        join b id
            b UnknownMemberId
        ",
    );
    // Used in time; or handed back.
    check(
        "
        join a known
            a needs id a
        list
            g  Empty
        leave a
            a ok
        list
        join b known
            b needs id b
        wait 10000
        list
        ",
    );
}

#[test]
fn protocols_are_agreed_on() {
    check(
        "
        join a proto=
            a InconsistentGroupProtocol
        join a type= proto=range
            a InconsistentGroupProtocol
        join a proto=range+sticky
        join b proto=sticky+other
        join c proto=other
            c InconsistentGroupProtocol
        join c type=connect proto=sticky
            c InconsistentGroupProtocol
        wait 6000
            a joined as a gen=1 sticky leader=a members=a+b
            b joined as b gen=1 sticky leader=a
        sync a 1 proto:range
            a InconsistentGroupProtocol
        sync a 1 type:connect
            a InconsistentGroupProtocol
        sync a 1 proto:sticky type:consumer
            write group gen=1 members=2
            a synced b\"\"
        ",
    );
}

#[test]
fn a_restart_keeps_members_and_their_generation() {
    check(
        "
        join a
        join b
        wait 6000
            a joined as a gen=1 range leader=a members=a+b
            b joined as b gen=1 range leader=a
        sync a 1 a=x b=y
            write group gen=1 members=2
            a synced b\"x\"
        restart
        describe
            describe Stable [consumer] [range] a=b\"x\" b=b\"y\"
        sync b 1
            b synced b\"y\"
        beat a 1
            a alive
        wait 9999
        beat a 1
            a alive
        wait 1
        beat a 1
            a RebalanceInProgress
        join a id
            a joined as a gen=2 range leader=a members=a
        restart
        beat a 2
            a IllegalGeneration
        beat a 1
            a alive
        ",
    );
}

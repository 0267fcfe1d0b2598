//! Members with a `group.instance.id` keep their place over a restart.

use super::script::check;

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    check(
        "
        join a as=one
        join b as=two
        wait 6000
            a joined as a gen=1 range leader=a members=a+b
            b joined as b gen=1 range leader=a
        sync a 1 a=p0 b=p1
            write group gen=1 members=2
            a synced b\"p0\"
        sync b 1
            b synced b\"p1\"
        join b as=two
            write group gen=1 members=2
            b joined as b2 gen=1 range leader=a
        beat b 1 as=two
            b FencedInstanceId
        beat b 1
            b UnknownMemberId
        sync b2 1
            b2 synced b\"p1\"
        join a as=one
            write group gen=1 members=2
            a joined as a2 gen=1 range leader=a
        join a as=one skip
            write group gen=1 members=2
            a joined as a3 gen=1 range leader=a3 members=a3+b2 skip
        sync a3 1
            a3 synced b\"p0\"
        restart
        beat a3 1 as=one
            a3 alive
        sync b2 1
            b2 synced b\"p1\"
        ",
    );
}

#[test]
fn a_static_member_that_joins_twice_fences_the_first() {
    check(
        "
        join a as=one
        join a as=one
            a FencedInstanceId
        wait 6000
            a joined as a gen=1 range leader=a members=a
        join b
        join a as=one
            a joined as a2 gen=2 range leader=a2 members=a2+b
            b joined as b gen=2 range leader=a2
        sync b 2
        join a as=one
            b RebalanceInProgress
        join b id
            a joined as a3 gen=3 range leader=a3 members=a3+b
            b joined as b gen=3 range leader=a3
        join x id as=one
            x FencedInstanceId
        join x id as=unknown
            x UnknownMemberId
        ",
    );
}

#[test]
fn static_members_may_be_away_during_a_rebalance_and_leave_by_instance() {
    check(
        "
        join a as=one session=100000
        join b session=100000
        wait 6000
            a joined as a gen=1 range leader=a members=a+b
            b joined as b gen=1 range leader=a
        sync a 1
            write group gen=1 members=2
            a synced b\"\"
        sync b 1
            b synced b\"\"
        join b id meta=u session=100000
        wait 59999
        wait 1
            b joined as b gen=2 range leader=b members=a+b
        leave - as=nobody
            - UnknownMemberId
        leave b as=one
            b FencedInstanceId
        leave - as=one
            - ok
        beat b 2
            b RebalanceInProgress
        ",
    );
}

#[test]
fn only_static_members_all_away_wait_for_their_sessions() {
    check(
        "
        join a as=one rebalance=10000 session=40000
        join b rebalance=10000 session=10000
        wait 6000
            a joined as a gen=1 range leader=a members=a+b
            b joined as b gen=1 range leader=a
        sync a 1
            write group gen=1 members=2
            a synced b\"\"
        sync b 1
            b synced b\"\"
        leave b
            b ok
        wait 39000
        describe
            describe PreparingRebalance [consumer] [] a=b\"\"
        wait 1000
            write group gen=2 members=0
        ",
    );
}

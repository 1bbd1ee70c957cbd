//! Tests of rate limit.

use super::*;

const RULE: Rule = Rule {
    per_minute: 60,
    burst: 3,
};

fn source(last: u8) -> Source {
    IpAddr::from([192, 0, 2, last]).into()
}

fn at(seconds: u64) -> Tick {
    Tick(Duration::from_secs(seconds))
}

#[test]
fn a_burst_passes_then_one_a_second() {
    let limiter = Limiter::default();
    let take = |now| limiter.take(Group::Client, source(1), RULE, now);
    assert_eq!(
        [take(at(0)), take(at(0)), take(at(0)), take(at(0))],
        [Ok(()), Ok(()), Ok(()), Err(1)]
    );
    assert_eq!([take(at(1)), take(at(1))], [Ok(()), Err(1)]);
    assert_eq!(
        [take(at(9)), take(at(9)), take(at(9)), take(at(9))],
        [Ok(()), Ok(()), Ok(()), Err(1)]
    );
}

#[test]
fn sources_and_groups_do_not_share_a_bucket() {
    let limiter = Limiter::default();
    let rule = Rule {
        per_minute: 1,
        burst: 1,
    };
    for (group, source) in [
        (Group::Client, source(1)),
        (Group::Client, source(2)),
        (Group::ClientFailures, source(1)),
    ] {
        assert_eq!(limiter.take(group, source, rule, at(0)), Ok(()));
        assert_eq!(limiter.take(group, source, rule, at(0)), Err(60));
    }
}

#[test]
fn a_source_has_so_many_an_hour_and_each_comes_back_an_hour_later() {
    let limiter = Arc::new(Limiter::default());
    let quota = |last| {
        let bucket = (Group::Trials, source(last));
        HourlyQuota::new(limiter.clone(), bucket, 3)
    };
    let wait = |refused: Refused| refused.members["retry_after"].as_u64().unwrap();
    let take = |last, now| quota(last).take(at(now)).map_err(wait);
    assert_eq!([take(1, 0), take(1, 600), take(1, 601)], [Ok(()); 3]);
    assert_eq!(take(1, 602), Err(2998));
    assert_eq!(take(2, 602), Ok(()), "another source");
    assert_eq!(take(1, 3599), Err(1));
    assert_eq!([take(1, 3600), take(1, 3600)], [Ok(()), Err(600)]);
    assert_eq!(
        [take(1, 4200), take(1, 4201), take(1, 4202)],
        [Ok(()), Ok(()), Err(2998)]
    );
    // A lower limit counts what was taken before, as far as it has places for it; without a limit nothing is counted.
    let fewer = HourlyQuota::new(limiter.clone(), (Group::Trials, source(1)), 1);
    assert_eq!(fewer.take(at(4203)).map_err(wait), Err(2997));
    let unlimited = HourlyQuota::new(limiter.clone(), (Group::Trials, source(3)), 0);
    assert!((0..100).all(|_| unlimited.take(at(0)).is_ok()));
}

#[test]
fn an_ipv6_network_is_one_source() {
    let one: IpAddr = "2001:db8:1:2:3::1".parse().unwrap();
    let same: IpAddr = "2001:db8:1:2:ffff::9".parse().unwrap();
    let other: IpAddr = "2001:db8:1:3::1".parse().unwrap();
    let mapped: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
    assert_eq!(Source::from(one), Source::from(same));
    assert_ne!(Source::from(one), Source::from(other));
    assert_eq!(Source::from(mapped), source(7));
}

#[test]
fn checking_takes_nothing_and_failing_does() {
    let limiter = Limiter::default();
    let check = || limiter.check(Group::ClientFailures, source(1), RULE, at(0));
    for _ in 0..3 {
        assert_eq!([check(), check()], [Ok(()), Ok(())]);
        limiter.record_failure(Group::ClientFailures, source(1), RULE, at(0));
    }
    assert_eq!(check(), Err(1));
    for _ in 0..100 {
        limiter.record_failure(Group::ClientFailures, source(1), RULE, at(0));
    }
    assert_eq!(check(), Err(1), "failures beyond the limit add nothing");
}

#[test]
fn a_request_that_is_put_back_does_not_count() {
    let limiter = Limiter::default();
    for _ in 0..100 {
        assert_eq!(limiter.take(Group::Client, source(1), RULE, at(0)), Ok(()));
        limiter.put_back(Group::Client, source(1), RULE, at(0));
    }
    assert_eq!(limiter.check(Group::Client, source(1), RULE, at(0)), Ok(()));
}

#[test]
fn the_half_rule_leaves_half_of_the_bucket_to_others() {
    let limiter = Limiter::default();
    let rule = Rule {
        per_minute: 60,
        burst: 10,
    };
    let take = |rule, now| limiter.take(Group::Client, source(1), rule, at(now));
    let refused = (0..20).filter(|_| take(rule.half(), 0).is_ok()).count();
    assert_eq!(refused, 5);
    let others = (0..20).filter(|_| take(rule, 0).is_ok()).count();
    assert_eq!(others, 5);
    // Refilled requests go to the others first.
    assert_eq!((take(rule.half(), 1), take(rule, 1)), (Err(5), Ok(())));
}

#[test]
fn a_caller_with_a_slot_is_remembered_for_a_day() {
    let limiter = Limiter::default();
    let caller = Source::from_identifier(b"a key and a fingerprint");
    assert!(!limiter.remembers(caller, at(0)));
    limiter.remember(caller, at(0));
    assert!(limiter.remembers(caller, at(86_399)));
    assert!(!limiter.remembers(caller, at(86_400)));
    for number in 0..100_000_u32 {
        limiter.remember(Source::from_identifier(&number.to_be_bytes()), at(86_400));
    }
    assert!(limiter.remembered().until.len() <= SOURCES_MAX);
}

#[test]
fn a_license_has_its_burst_and_then_its_rate() {
    let rule = Rule {
        per_minute: 10,
        burst: 120,
    };
    let quota = Quota::new(Arc::default(), rule);
    let take = |group, at_once, now| quota.take(group, 7, at_once, at(now)).is_ok();
    let starts = |now| {
        let all = (0..1000).filter(|_| take(Group::LicenseStarts, 1, now));
        all.count()
    };
    assert_eq!([starts(0), starts(3600), starts(3660)], [120, 120, 10]);
    let slots = (0..1000).filter(|_| take(Group::LicenseActivations, 300, 0));
    assert_eq!(
        slots.count(),
        300,
        "all devices may be activated on the first day"
    );
    let unlimited = Quota::unlimited();
    assert!((0..10_000).all(|_| unlimited.take(Group::LicenseStarts, 7, 1, at(0)).is_ok()));
}

#[test]
fn several_calls_are_taken_together_or_not_at_all() {
    let (limiter, source) = (Limiter::default(), source(1));
    let rule = Rule {
        per_minute: 1,
        burst: 10,
    };
    let take =
        |count, now| limiter.take_many((Group::SourceLockouts, source), rule, count, at(now));
    assert_eq!(take(11, 0), Err(60), "more than the burst size");
    assert_eq!(take(10, 0), Ok(()));
    assert_eq!(take(10, 0), Err(600));
    assert_eq!(take(10, 599), Err(1), "a rejected request takes nothing");
    assert_eq!(take(10, 600), Ok(()));
}

#[test]
fn a_rule_without_a_limit_admits_every_request() {
    let limiter = Limiter::default();
    let off = Rule {
        per_minute: 0,
        burst: 1,
    };
    for _ in 0..10_000 {
        assert_eq!(limiter.take(Group::Client, source(1), off, at(0)), Ok(()));
    }
}

#[test]
fn a_flood_of_sources_neither_exceeds_the_table_size_nor_limits_other_networks() {
    let limiter = Limiter::default();
    let rule = Rule {
        per_minute: 1,
        burst: 2,
    };
    // One host with an IPv6 /48 network.
    for number in 0..(u128::try_from(SOURCES_MAX).unwrap() + 10_000) {
        let address = 0x2001_0db8_u128 << 96 | number << 64 | 1;
        let address = IpAddr::from(address.to_be_bytes());
        limiter.record_failure(Group::Client, address.into(), rule, at(0));
    }
    let held = limiter.buckets(Group::Client).full_at.len();
    assert!(held <= SOURCES_MAX + 1, "{held}");
    let take = |address: &str| {
        let source = address.parse::<IpAddr>().unwrap().into();
        limiter.take(Group::Client, source, rule, at(0)).is_ok()
    };
    assert!(!take("2001:db8:0:ffff::1"), "the flood limits itself");
    assert!(take("2001:db8:1::1"), "and no other network");
    assert!(take("192.0.2.1"));
}

#[test]
fn callers_are_bounded_and_do_not_fill_the_table_of_addresses() {
    let limiter = Limiter::default();
    for number in 0..100_000_u32 {
        let caller = Source::from_identifier(&number.to_be_bytes());
        limiter.record_failure(Group::NamedLookups, caller, RULE, at(0));
    }
    assert!(limiter.buckets(Group::NamedCaller).full_at.len() <= SOURCES_MAX);
    assert!(limiter.buckets(Group::Client).full_at.is_empty());
}

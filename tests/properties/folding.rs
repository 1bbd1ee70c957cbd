//! A history that is folded loses no session: the number of each day and way to end stays, and so do the
//! first and the last ones.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

use license_server::clock::UnixMs;
use license_server::id::SessionToken;
use license_server::sessions::{Period, TOKEN_KEPT, UsageCache};

use crate::house::{DAY_MS, House, token_of};

/// Rows of a license and day that stay one by one.
const KEPT: u32 = 10;

/// A row of the history: end, number, how it ended, for how many sessions it stands, how long they ran.
type Row = (i64, i64, String, Option<u32>, i64);

const FOR_EVER: UnixMs = UnixMs(i64::MAX);

fn rows(house: &House) -> Vec<Row> {
    let file = house.look();
    let sql = "select ended_at_ms, session_id, end_reason, sessions, coalesce(ran_ms, ended_at_ms - started_at_ms)
               from session_history order by 1, 2";
    let mut query = file.prepare(sql).unwrap();
    let rows = query.query_map([], |row| {
        Ok((
            row.get(0)?,
            row.get(1)?,
            row.get(2)?,
            row.get(3)?,
            row.get(4)?,
        ))
    });
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

/// How many sessions ended on each day in each way, and how long they ran.
fn counted(rows: &[Row]) -> BTreeMap<(i64, String), (u32, i64)> {
    let mut counts = BTreeMap::<_, (u32, i64)>::new();
    for (at, _, reason, sessions, ran) in rows {
        let day = counts.entry((at / DAY_MS, reason.clone())).or_default();
        day.0 += sessions.unwrap_or(1);
        day.1 += ran;
    }
    counts
}

/// Starts a session, ends it in the way of this number, and lets some time pass; its token.
fn one(house: &House, way: u8, pause_s: u64) -> SessionToken {
    let token = token_of(&house.start(0, 0, None).unwrap());
    house.advance(Duration::from_secs(u64::from(way % 7)));
    match way % 3 {
        0 => drop(house.end(token, None).unwrap()),
        1 => house.terminate(token).unwrap(),
        _ => {
            house.advance(Duration::from_mins(1));
            assert_eq!(house.sweep(), 1);
        }
    }
    house.advance(Duration::from_secs(pause_s));
    token
}

fn live(steps: &[(u8, u64, bool)]) -> Result<(), TestCaseError> {
    let mut house = House::new();
    house.issue(1, None);
    house.activate(0, 0).unwrap();
    // What would stand there without a fold.
    let mut whole: Vec<Row> = Vec::new();
    let mut tokens = Vec::new();
    for (way, pause_s, fold) in steps {
        let token = one(&house, *way, *pause_s);
        let newest = rows(&house).into_iter().max_by_key(|(_, id, ..)| *id);
        let newest = newest.unwrap();
        tokens.push((token, newest.0));
        whole.push(newest);
        if *fold {
            let until = house.now().wall.minus(TOKEN_KEPT);
            house.fold(KEPT, until);
            let mut young = tokens.iter().filter(|(_, ended)| *ended >= until.0);
            prop_assert!(
                young.all(|(token, _)| house.end(*token, None).is_ok()),
                "a program may still ask for it"
            );
        }
    }
    house.fold(KEPT, FOR_EVER);
    prop_assert_eq!(house.fold(KEPT, FOR_EVER), 0, "nothing is left to fold");
    let folded = rows(&house);
    prop_assert_eq!(counted(&folded), counted(&whole));
    let days: Vec<i64> = whole.iter().map(|(at, ..)| at / DAY_MS).collect();
    for day in days {
        let of = |rows: &[Row]| -> Vec<i64> {
            let rows = rows.iter();
            let singles =
                rows.filter(|(at, _, _, sessions, _)| at / DAY_MS == day && sessions.is_none());
            singles.map(|(_, id, ..)| *id).collect()
        };
        let (kept, all) = (of(&folded), of(&whole));
        prop_assert!(kept.len() <= KEPT as usize, "{kept:?}");
        let half = (KEPT as usize / 2).min(all.len());
        prop_assert_eq!(&kept[..half], &all[..half], "the first");
        prop_assert_eq!(
            &kept[kept.len() - half..],
            &all[all.len() - half..],
            "the last"
        );
    }
    Ok(())
}

#[test]
fn a_fold_keeps_the_first_the_last_and_the_number_of_each_day_and_way_to_end() {
    let config = ProptestConfig {
        cases: crate::rounds(4),
        failure_persistence: None,
        max_shrink_iters: 100,
        ..ProptestConfig::default()
    };
    let step = (any::<u8>(), 0..3000_u64, prop::bool::weighted(0.1));
    let histories = prop::collection::vec(step, 20..120);
    let outcome = TestRunner::new(config).run(&histories, |steps| live(&steps));
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// How many sessions ran on each hour of the last week.
fn course(house: &House) -> Vec<u32> {
    let levels = house.db().read_blocking(|reader| {
        UsageCache::default().get(reader, &house.live, Period::Week, house.now())
    });
    levels.unwrap().iter().map(|level| level.running).collect()
}

/// Runs a session of 50 s after another, with a pause between; then two days pass.
fn a_day_of_sessions(count: u32, pause: Duration) -> House {
    let mut house = House::new();
    house.issue(1, None);
    house.activate(0, 0).unwrap();
    // None of the short ones runs on the hour.
    house.advance(Duration::from_secs(100));
    for _ in 0..count {
        let token = token_of(&house.start(0, 0, None).unwrap());
        house.advance(Duration::from_secs(50));
        house.end(token, None).unwrap();
        house.advance(pause);
    }
    house.advance(Duration::from_hours(48));
    house
}

#[test]
fn the_course_of_concurrent_sessions_is_the_same_before_and_after_a_fold() {
    for (count, pause_s, hours_at_work) in [(40, 950, 0), (500, 0, 6)] {
        let house = a_day_of_sessions(count, Duration::from_secs(pause_s));
        let before = course(&house);
        assert_eq!(house.fold(KEPT, FOR_EVER), count as usize - KEPT as usize);
        let after = course(&house);
        assert_eq!(after, before);
        assert!(after.iter().sum::<u32>() >= hours_at_work, "{after:?}");
    }
}

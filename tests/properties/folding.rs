//! A history that is folded loses no session: the number of each day and way to end stays, and so do the
//! first and the last ones.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

use crate::house::{DAY_MS, House, token_of};

/// Rows of a license and day that stay one by one.
const KEPT: u32 = 10;

/// A row of the history: end, number, how it ended, for how many sessions it stands.
type Row = (i64, i64, String, Option<u32>);

fn rows(house: &House) -> Vec<Row> {
    let file = house.look();
    let sql =
        "select ended_at_ms, session_id, end_reason, sessions from session_history order by 1, 2";
    let mut query = file.prepare(sql).unwrap();
    let rows = query.query_map([], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    });
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

/// How many sessions ended on each day in each way.
fn counted(rows: &[Row]) -> BTreeMap<(i64, String), u32> {
    let mut counts = BTreeMap::new();
    for (at, _, reason, sessions) in rows {
        let day = (at / DAY_MS, reason.clone());
        *counts.entry(day).or_default() += sessions.unwrap_or(1);
    }
    counts
}

/// Starts a session, ends it in the way of this number, and lets some time pass.
fn one(house: &House, way: u8, pause_s: u64) {
    let token = token_of(&house.start(0, 0, None).unwrap());
    match way % 3 {
        0 => drop(house.end(token, None).unwrap()),
        1 => house.terminate(token).unwrap(),
        _ => {
            house.advance(Duration::from_mins(1));
            assert_eq!(house.sweep(), 1);
        }
    }
    house.advance(Duration::from_secs(pause_s));
}

fn live(steps: &[(u8, u64, bool)]) -> Result<(), TestCaseError> {
    let mut house = House::new();
    house.issue(1, None);
    house.activate(0, 0).unwrap();
    // What would stand there without a fold.
    let mut whole: Vec<Row> = Vec::new();
    for (way, pause_s, fold) in steps {
        one(&house, *way, *pause_s);
        let newest = rows(&house).into_iter().max_by_key(|(_, id, ..)| *id);
        whole.push(newest.unwrap());
        if *fold {
            house.fold(KEPT);
        }
    }
    house.fold(KEPT);
    prop_assert_eq!(house.fold(KEPT), 0, "nothing is left to fold");
    let folded = rows(&house);
    prop_assert_eq!(counted(&folded), counted(&whole));
    let days: Vec<i64> = whole.iter().map(|(at, ..)| at / DAY_MS).collect();
    for day in days {
        let of = |rows: &[Row]| -> Vec<i64> {
            let rows = rows.iter();
            let singles =
                rows.filter(|(at, _, _, sessions)| at / DAY_MS == day && sessions.is_none());
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
    let step = (any::<u8>(), 0..1500_u64, prop::bool::weighted(0.1));
    let histories = prop::collection::vec(step, 20..120);
    let outcome = TestRunner::new(config).run(&histories, |steps| live(&steps));
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

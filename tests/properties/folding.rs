//! Folding the session history loses no session: the number of sessions of each day and end reason stays, and so
//! do the rows of the first and the last ones.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

use license_server::clock::UnixMs;
use license_server::figures::{self, FiguresQuery, Period};
use license_server::id::SessionToken;
use license_server::session_history::TOKEN_RETENTION;

use crate::in_process::{DAY_MS, InProcess, token_of};

/// Rows per license and day that are not folded.
const PER_DAY: u32 = 10;

/// A row of the history: end, id, end reason, number of sessions that it stands for, and how long they ran.
type Row = (i64, i64, String, Option<u32>, i64);

const FOREVER: UnixMs = UnixMs(i64::MAX);

fn rows(server: &InProcess) -> Vec<Row> {
    let conn = server.connect();
    let sql = "select ended_at_ms, session_id, end_reason, sessions, coalesce(ran_ms, ended_at_ms - started_at_ms)
               from session_history order by 1, 2";
    let mut query = conn.prepare(sql).unwrap();
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

/// The number of sessions of each day and end reason, and how long they ran.
fn counted(rows: &[Row]) -> BTreeMap<(i64, String), (u32, i64)> {
    let mut counts = BTreeMap::<_, (u32, i64)>::new();
    for (at, _, reason, sessions, ran) in rows {
        let day = counts.entry((at / DAY_MS, reason.clone())).or_default();
        day.0 += sessions.unwrap_or(1);
        day.1 += ran;
    }
    counts
}

/// Starts a session, ends it in the way given by `end_kind`, and lets `pause_s` pass; returns its token.
fn run_session(server: &InProcess, end_kind: u8, pause_s: u64) -> SessionToken {
    let token = token_of(&server.start(0, 0, None).unwrap());
    server.advance(Duration::from_secs(u64::from(end_kind % 7)));
    match end_kind % 3 {
        0 => drop(server.end(token, None).unwrap()),
        1 => server.terminate(token).unwrap(),
        _ => {
            server.advance(Duration::from_mins(1));
            assert_eq!(server.sweep(), 1);
        }
    }
    server.advance(Duration::from_secs(pause_s));
    token
}

fn check_history(steps: &[(u8, u64, bool)]) -> Result<(), TestCaseError> {
    let mut server = InProcess::new();
    server.issue(1, None);
    server.activate(0, 0).unwrap();
    // The rows that there would be without folding.
    let mut unfolded: Vec<Row> = Vec::new();
    let mut tokens = Vec::new();
    for (end_kind, pause_s, fold) in steps {
        let token = run_session(&server, *end_kind, *pause_s);
        let newest = rows(&server).into_iter().max_by_key(|(_, id, ..)| *id);
        let newest = newest.unwrap();
        tokens.push((token, newest.0));
        unfolded.push(newest);
        if *fold {
            let until = server.now().wall.minus(TOKEN_RETENTION);
            server.fold(PER_DAY, until);
            let mut recent = tokens.iter().filter(|(_, ended)| *ended >= until.0);
            prop_assert!(
                recent.all(|(token, _)| server.end(*token, None).is_ok()),
                "a program may still end it"
            );
        }
    }
    server.fold(PER_DAY, FOREVER);
    prop_assert_eq!(server.fold(PER_DAY, FOREVER), 0, "nothing is left to fold");
    let folded = rows(&server);
    prop_assert_eq!(counted(&folded), counted(&unfolded));
    let days: Vec<i64> = unfolded.iter().map(|(at, ..)| at / DAY_MS).collect();
    for day in days {
        let ids_of = |rows: &[Row]| -> Vec<i64> {
            let rows = rows.iter();
            let singles =
                rows.filter(|(at, _, _, sessions, _)| at / DAY_MS == day && sessions.is_none());
            singles.map(|(_, id, ..)| *id).collect()
        };
        let (remaining, expected) = (ids_of(&folded), ids_of(&unfolded));
        prop_assert!(remaining.len() <= PER_DAY as usize, "{remaining:?}");
        let count = (PER_DAY as usize / 2).min(expected.len());
        prop_assert_eq!(&remaining[..count], &expected[..count], "the first");
        prop_assert_eq!(
            &remaining[remaining.len() - count..],
            &expected[expected.len() - count..],
            "the last"
        );
    }
    Ok(())
}

#[test]
fn folding_keeps_the_first_the_last_and_the_count_of_each_day_and_end_reason() {
    let config = ProptestConfig {
        cases: crate::rounds(4),
        failure_persistence: None,
        max_shrink_iters: 100,
        ..ProptestConfig::default()
    };
    let step = (any::<u8>(), 0..3000_u64, prop::bool::weighted(0.1));
    let histories = prop::collection::vec(step, 20..120);
    let outcome = TestRunner::new(config).run(&histories, |steps| check_history(&steps));
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// The most active sessions at once in each hour of the last week.
fn concurrent_sessions(server: &InProcess) -> Vec<u32> {
    let query = FiguresQuery {
        product: None,
        period: Period::Week,
        zone: license_server::zone::Zone::default(),
    };
    let now = server.now().wall;
    let concurrency = server
        .db()
        .read_blocking(|reader| figures::concurrency(reader, &query, 0, now));
    let steps = concurrency.unwrap().steps;
    steps.iter().map(|step| step.running).collect()
}

/// Runs sessions of 50 s one after another, with a pause between them; then two days pass.
fn a_day_of_sessions(count: u32, pause: Duration) -> InProcess {
    let mut server = InProcess::new();
    server.issue(1, None);
    server.activate(0, 0).unwrap();
    // No session is active on the hour.
    server.advance(Duration::from_secs(100));
    for _ in 0..count {
        let token = token_of(&server.start(0, 0, None).unwrap());
        server.advance(Duration::from_secs(50));
        server.end(token, None).unwrap();
        server.advance(pause);
    }
    server.advance(Duration::from_hours(48));
    server
}

#[test]
fn the_chart_of_concurrent_sessions_is_the_same_before_and_after_folding() {
    for (count, pause_s, hours_at_work) in [(40, 950, 11), (500, 0, 6)] {
        let server = a_day_of_sessions(count, Duration::from_secs(pause_s));
        let before = concurrent_sessions(&server);
        assert_eq!(
            server.fold(PER_DAY, FOREVER),
            count as usize - PER_DAY as usize
        );
        let after = concurrent_sessions(&server);
        assert_eq!(after, before);
        assert!(after.iter().sum::<u32>() >= hours_at_work, "{after:?}");
    }
}
